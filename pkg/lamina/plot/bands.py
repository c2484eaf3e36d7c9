"""What is drawn around a value: the interval of a mean over runs, an estimate's own, or the range of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from lamina.measures.student import t_quantile
from lamina.measures.summary import summarize
from lamina.plot.frames import alone

_BUCKETS = 32
"""Most groups that an estimate leaves out in turn."""


def banded(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, str]:
    """Return keys, value, low, high, runs (how many), and in words what reaches from low to high.

    The values of the first key stand in order of appearance, within each the second key ascends.

    Of several runs the mean: with an interval of Student's t over runs where values are estimates (`stderr`), else
    with the range of the runs. Of one run the estimate's own interval. What stands in `low` and `high` is taken as it
    is.

    Args:
        frame: Columns `run`, `value` and keys; where known `stderr` and `n_groups`, or `low` and `high`. Rows without
            a value are left out.
        keys: The two columns whose values are kept apart.

    Raises:
        SchemaError: A run has several values at the same keys.
    """
    frame = frame.filter(pl.col("value").is_not_null())
    first, second = keys
    order = frame.select(pl.col(first).unique(maintain_order=True)).with_row_index(" ")
    found, words = _around(frame, keys)
    return found.join(order, on=first, nulls_equal=True).sort(" ", second).drop(" "), words


def _around(frame: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, str]:
    alone(frame, [*keys, "run"], hint="filter it, or name what differs")
    runs = frame["run"].n_unique()
    if {"low", "high"} <= set(frame.columns) and runs <= 1:
        return frame.select(*keys, "value", "low", "high", runs=1), "band: from low to high of the frame"
    if "stderr" in frame.columns and runs > 1:
        frame = frame.select("run", *keys, "value", "stderr")
        mean = summarize(frame).select(*keys, "value", "low", "high", runs="count")
        return mean, f"{averaged(mean['runs'])}; band: 95 % interval of that mean over runs (Student's t)"
    if runs > 1:
        value = pl.col("value")
        found = frame.group_by(keys, maintain_order=True).agg(
            value.mean(), low=value.min(), high=value.max(), runs=pl.col("run").n_unique()
        )
        return found, f"{averaged(found['runs'])}; band: from the lowest run to the highest"
    reach = _reach(frame) if "stderr" in frame.columns else pl.lit(None, pl.Float64)
    frame = frame.with_columns(reach.alias("reach")).with_columns(pl.col("reach").fill_nan(None))
    value = pl.col("value")
    found = frame.select(*keys, "value", low=value - pl.col("reach"), high=value + pl.col("reach"), runs=1)
    known = found["low"].is_not_null().any()
    return found, "band: 95 % interval of each estimate (Student's t over groups)" if known else ""


def averaged(counts: pl.Series, what: str = "runs") -> str:
    """Return of how many runs values are means, in words."""
    low, high = counts.min(), counts.max()
    return f"mean of {high} {what}" if low == high else f"mean of {low} to {high} {what}"


def _reach(frame: pl.DataFrame) -> pl.Expr:
    """Half the length of an estimate's interval: groups, at most 32 of them, less one are its degrees of freedom."""
    groups = pl.col("n_groups") if "n_groups" in frame.columns else pl.lit(_BUCKETS)
    quantiles = {0: math.nan, 1: math.nan} | {k: t_quantile(0.95, k - 1) for k in range(2, _BUCKETS + 1)}
    freedom = groups.fill_null(0).cast(pl.Int64).clip(0, _BUCKETS)
    return pl.col("stderr") * freedom.replace_strict(quantiles, return_dtype=pl.Float64)
