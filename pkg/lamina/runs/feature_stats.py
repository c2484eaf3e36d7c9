"""What each feature of sparse codes does over all rows: how often it is active, how strongly, and when."""

from __future__ import annotations

from collections.abc import Iterator
from os import sysconf
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

from lamina import _core
from lamina.errors import SchemaError
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    from lamina.runs.scan import Features

_SCHEMA = {
    "feature": pl.Int64,
    "count": pl.Int64,
    "density": pl.Float64,
    "mean": pl.Float64,
    "max": pl.Float64,
    **dict.fromkeys(("q10", "q50", "q90", "q99"), pl.Float64),
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "dead": pl.Boolean,
}

_ROW_BYTES = 240
"""Memory that a feature takes on the way, active or not."""


def feature_stats(codes: Features) -> pl.LazyFrame:
    """One row a feature; see `Run.feature_stats`."""

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        if codes.width * _ROW_BYTES > sysconf("SC_PHYS_PAGES") * sysconf("SC_PAGE_SIZE"):
            raise SchemaError(
                f"statistics of {codes.width:,} features do not fit in memory: there is a row for each",
                hint='run.features(site).group_by("feature").agg(…) has one for each that is active',
            )
        counted = pl.DataFrame(_core.feature_stats(codes.snapshot, codes.site, available_threads()))
        codes.indexes.tell()
        density = pl.col("count") / codes.rows if codes.rows else pl.lit(0.0)
        stats = counted.with_columns(density=density, dead=pl.col("count") == 0).select(*_SCHEMA)
        stats = stats if predicate is None else stats.filter(predicate)
        stats = stats if with_columns is None else stats.select(with_columns)
        yield stats if n_rows is None else stats.head(n_rows)

    return register_io_source(batches, schema=pl.Schema(_SCHEMA), is_pure=True)
