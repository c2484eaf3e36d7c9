"""What each feature of sparse codes does over all rows: how often it is active, how strongly, and when."""

from __future__ import annotations

import polars as pl

QUANTILES = (0.1, 0.5, 0.9, 0.99)
_BINS = 8
"""Bins of the histogram for each doubling of a value."""


def feature_stats(codes: pl.LazyFrame, width: int, rows: int) -> pl.LazyFrame:
    """One row a feature; see `Run.feature_stats`.

    Args:
        codes: The long frame.
        width: How many features there are.
        rows: How many rows have codes.
    """
    columns = codes.collect_schema()
    step = pl.col("step") if "step" in columns else pl.lit(None, pl.Int64)
    # the values are exact in f64; halves are not what all of Polars computes with
    codes = codes.select("feature", step.alias("step"), value=pl.col("value").cast(pl.Float64))
    sums = codes.group_by("feature").agg(
        count=pl.len(),
        mean=pl.col("value").mean(),
        max=pl.col("value").max(),
        first_step=pl.col("step").min(),
        last_step=pl.col("step").max(),
    )
    features = pl.LazyFrame({"feature": pl.int_range(width, eager=True)})
    count = pl.col("count").fill_null(0).cast(pl.Int64)
    return (
        features.join(sums, on="feature", how="left", maintain_order="left")
        .join(_quantiles(codes), on="feature", how="left", maintain_order="left")
        .with_columns(count=count)
        .with_columns(density=pl.col("count") / rows if rows else pl.lit(0.0), dead=pl.col("count") == 0)
        .select(
            *("feature", "count", "density", "mean", "max"),
            *(_name(quantile) for quantile in QUANTILES),
            *("first_step", "last_step", "dead"),
        )
    )


def _name(quantile: float) -> str:
    return f"q{100 * quantile:02.0f}"


def _quantiles(codes: pl.LazyFrame) -> pl.LazyFrame:
    """Of each feature, from a histogram: the middle of the bin in which the quantile lies."""
    value = pl.col("value")
    bins = (value.abs().log(2) * _BINS).floor()
    histogram = (
        codes.filter(value.is_finite())
        .group_by("feature", bin=value.sign() * (bins + 10_000))
        .agg(count=pl.len().cast(pl.Int64))
        .sort("feature", "bin")
    )
    middle = pl.col("bin").sign() * ((pl.col("bin").abs() - 10_000 + 0.5) / _BINS * pl.lit(2.0).log()).exp()
    upto = pl.col("count").cum_sum().over("feature")
    rank = histogram.with_columns(middle=middle, upto=upto, all=pl.col("count").sum().over("feature"))

    def quantile(wanted: float) -> pl.Expr:
        # the first bin up to which at least this part of the values lies
        return pl.col("middle").filter(pl.col("upto") >= wanted * pl.col("all")).first().alias(_name(wanted))

    return rank.group_by("feature").agg(quantile(wanted) for wanted in QUANTILES)
