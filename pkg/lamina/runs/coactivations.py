"""How often features of sparse codes are active in the same row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

if TYPE_CHECKING:
    from lamina.runs.scan import Features

_SCHEMA = {
    "feature": pl.Int64,
    "other": pl.Int64,
    "count": pl.Int64,
    "expected": pl.Float64,
    "phi": pl.Float64,
}


def coactivations(codes: Features, pairs: np.ndarray) -> pl.LazyFrame:
    """One row a pair; see `Run.coactivations`.

    Args:
        codes: The long frame.
        pairs: [pairs, 2] int64, features.
    """

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        found = _of_counts(pairs, *_counts(codes, pairs), codes.rows)
        found = found if predicate is None else found.filter(predicate)
        found = found if with_columns is None else found.select(with_columns)
        yield found if n_rows is None else found.head(n_rows)

    return register_io_source(batches, schema=pl.Schema(_SCHEMA), is_pure=True)


def _counts(codes: Features, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In how many rows each pair is active, and each feature of it alone."""
    asked = pl.DataFrame({"pair": np.arange(len(pairs)), "feature": pairs[:, 0], "other": pairs[:, 1]}).lazy()
    some, places = np.unique(pairs, return_inverse=True)
    both, alone = np.zeros(len(pairs), np.int64), np.zeros(some.size, np.int64)
    for units in codes.of(some):
        others = units.lazy().rename({"feature": "other"})
        met = units.lazy().join(asked, on="feature").join(others, on=["row", "other"], how="semi")
        counted = met.group_by("pair").len().collect()
        both[counted["pair"].to_numpy()] += counted["len"].to_numpy()
        alone += np.bincount(np.searchsorted(some, units["feature"].to_numpy()), minlength=some.size)
    return both, alone[places].reshape(pairs.shape)


def _of_counts(pairs: np.ndarray, both: np.ndarray, alone: np.ndarray, rows: int) -> pl.DataFrame:
    first, second = alone.T.astype(np.float64)
    expected = first * second / max(rows, 1)
    # the product of both variances is zero where a feature is never active, or always
    spread = np.sqrt(first * (rows - first)) * np.sqrt(second * (rows - second))
    phi = np.divide(rows * both - first * second, spread, out=np.full(len(pairs), np.nan), where=spread > 0)
    phi = phi.clip(-1, 1)  # it may be off by a rounding
    columns = {"feature": pairs[:, 0], "other": pairs[:, 1], "count": both, "expected": expected, "phi": phi}
    return pl.DataFrame(columns, schema=_SCHEMA, nan_to_null=True)
