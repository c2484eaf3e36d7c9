"""What each feature of sparse codes does over all rows: how often it is active, how strongly, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl
from polars.io.plugins import register_io_source

if TYPE_CHECKING:
    from lamina.runs.scan import Features

QUANTILES = (0.1, 0.5, 0.9, 0.99)
_BINS = 8
"""Bins of the histogram for each doubling of a value."""
_ZERO = 4096
"""Where zero would stand among the bins: those of singles, 2^-149 to 2^128, are fewer on either side."""
_OTHER = 2 * _ZERO - 1
"""The bin of infinities and NaN."""
_MERGED = 1 << 21
"""Bins of batches that wait at least to be put together."""


def _name(quantile: float) -> str:
    return f"q{100 * quantile:02.0f}"


_SCHEMA = {
    "feature": pl.Int64,
    "count": pl.Int64,
    "density": pl.Float64,
    "mean": pl.Float64,
    "max": pl.Float64,
    **{_name(quantile): pl.Float64 for quantile in QUANTILES},
    "first_step": pl.Int64,
    "last_step": pl.Int64,
    "dead": pl.Boolean,
}


def feature_stats(codes: Features, width: int, rows: int) -> pl.LazyFrame:
    """One row a feature; see `Run.feature_stats`.

    Args:
        codes: The long frame.
        width: How many features there are.
        rows: How many rows have codes.
    """

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        stats = _of_features(_histogram(codes), width, rows)
        stats = stats if predicate is None else stats.filter(predicate)
        stats = stats if with_columns is None else stats.select(with_columns)
        yield stats if n_rows is None else stats.head(n_rows)

    return register_io_source(batches, schema=pl.Schema(_SCHEMA), is_pure=True)


def _of_features(histogram: pl.DataFrame, width: int, rows: int) -> pl.DataFrame:
    finite = pl.col("place") != _OTHER
    upto = pl.col("count").filter(finite).cum_sum()

    def quantile(wanted: float) -> pl.Expr:
        # the middle of the first bin up to which at least this part of the values lies
        place = pl.col("place").filter(finite).filter(upto >= wanted * pl.col("count").filter(finite).sum()).first()
        middle = ((place - _ZERO).abs() - _ZERO // 2 + 0.5) / _BINS * math.log(2)
        return ((place - _ZERO).sign() * middle.exp()).alias(_name(wanted))

    of_feature = (
        histogram.lazy()
        .group_by("feature")
        .agg(
            pl.col("count").sum(),
            pl.col("max").max(),
            pl.col("first_step").min(),
            pl.col("last_step").max(),
            *(quantile(wanted) for wanted in QUANTILES),
            mean=pl.col("sum").sum() / pl.col("count").sum(),
        )
    )
    features = pl.LazyFrame({"feature": pl.int_range(width, eager=True)})
    stats = (
        features.join(of_feature, on="feature", how="left", maintain_order="left")
        .with_columns(pl.col("count").fill_null(0))
        .with_columns(density=pl.col("count") / rows if rows else pl.lit(0.0), dead=pl.col("count") == 0)
        .select(*_SCHEMA)
    )
    return stats.collect()


def _histogram(codes: Features) -> pl.DataFrame:
    """Feature by feature the bins that have values, ascending: how many, their sum and maximum, and when.

    Batches are put together as they come: of so many groups Polars would keep every value.
    """
    kept, size = [], 0
    for batch in codes.batches(["feature", "value", "step"]):
        kept.append(_binned(batch))
        if sum(frame.height for frame in kept) > 2 * size + _MERGED:
            kept, size = [merged := _merged(kept)], merged.height
    bins = _merged(kept or [_binned(pl.DataFrame(schema={"feature": pl.Int64, "value": pl.Float32}))])
    return bins.sort("key").with_columns(feature=pl.col("key") // (2 * _ZERO), place=pl.col("key") % (2 * _ZERO))


def _binned(units: pl.DataFrame) -> pl.DataFrame:
    # halves are not what all of Polars computes with
    value = pl.col("value").cast(pl.Float64)
    step = pl.col("step") if "step" in units.columns else pl.lit(None, pl.Int64)
    # bins of absolute values are counted from below that of the least single, those of negative ones backwards
    size = (value.abs().log(2) * _BINS).floor().cast(pl.Int64, strict=False) + _ZERO // 2
    place = pl.when(~value.is_finite()).then(_OTHER).when(value > 0).then(_ZERO + size).otherwise(_ZERO - size)
    key = pl.col("feature") * (2 * _ZERO) + place
    return units.group_by(key.alias("key")).agg(
        count=pl.len().cast(pl.Int64),
        sum=value.sum(),
        max=value.max(),
        first_step=step.min(),
        last_step=step.max(),
    )


def _merged(bins: list[pl.DataFrame]) -> pl.DataFrame:
    sums = pl.col("count").sum(), pl.col("sum").sum(), pl.col("max").max()
    return pl.concat(bins).group_by("key").agg(*sums, pl.col("first_step").min(), pl.col("last_step").max())
