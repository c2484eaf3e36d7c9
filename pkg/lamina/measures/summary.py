"""Means over runs of what was measured in each."""

from __future__ import annotations

import math

import polars as pl

from lamina.errors import SchemaError
from lamina.measures.student import t_quantile

_NOT_KEYS = ("value", "stderr", "n", "n_groups", "dropped", "seed")


def summarize(frame: pl.DataFrame | pl.LazyFrame, *, over: str = "run", level: float = 0.95) -> pl.DataFrame:
    """Average estimates over runs (seeds), with the interval that their spread gives.

    Runs are independent draws of a training. The error of their mean follows from how far they lie apart, which holds
    what each run's own error contributes; `within` says how much that is. Rows of a run are no further draws: the
    interval of one run says nothing of another seed.

    Args:
        frame: Rows of `Estimate.to_frame()` with a column that says which run they are of, or of a sweep, whose columns
            `run_a` and `run_b` then name the same run in each row.
        over: The column to average over; `<over>_a` and `<over>_b` stand for it.
        level: The probability that the interval covers the mean over all runs that might have been.

    Returns:
        One row for each combination of the other columns (site, step, measure, options, part, unit, …), in order of
        appearance: value (the mean), stderr (the runs' standard deviation over the square root of their number), low,
        high (Student's t, runs - 1 degrees of freedom), within (the mean's error if runs differed by their own errors
        alone), count (runs), missing (runs whose value is NaN or null, which are left out). stderr, low and high are
        null for a single run.

    Raises:
        SchemaError: There is no such column, a run occurs twice, or the rows compare different runs: such pairs share
            runs and are not independent.

    Example:
        >>> frame = pl.DataFrame({"run": ["a", "b", "c"], "measure": "cka", "value": [0.1, 0.2, 0.3], "stderr": 0.03})
        >>> summarize(frame).select(pl.col("value", "stderr", "low", "high", "within").round(3)).row(0)
        (0.2, 0.058, -0.048, 0.448, 0.017)
    """
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise SchemaError(
            f"the frame is a {type(frame).__name__}", hint="to_frame() makes one of an estimate; concat them"
        )
    frame = frame.lazy().collect()
    runs = [name for name in (over, f"{over}_a", f"{over}_b") if name in frame.columns]
    if not runs:
        raise SchemaError(f"the frame has no column {over!r}", hint=f"it has {', '.join(frame.columns)}")
    for name in ("value", "stderr"):
        if name not in frame.columns:
            raise SchemaError(f"the frame has no column {name!r}", hint="give rows of a sweep")
    if len(runs) > 1 and frame.filter(pl.col(runs[-2]) != pl.col(runs[-1])).height:
        raise SchemaError(
            f"rows compare one {over} with another, and pairs that share a {over} are not independent",
            hint=f"filter to {runs[-2]} == {runs[-1]}",
        )
    keys = [name for name in frame.columns if name not in (*runs, *_NOT_KEYS)]
    one = pl.lit(0).alias(" ")
    if frame.group_by([one, *keys, runs[0]]).len()["len"].max() not in (None, 1):
        raise SchemaError(f"a {over} occurs twice with the same {', '.join(keys)}", hint="keep a column that differs")
    value = pl.col("value").fill_nan(None)
    count = value.count()
    found = frame.group_by([one, *keys], maintain_order=True).agg(
        value=value.mean(),
        stderr=value.std() / count.sqrt(),
        within=pl.col("stderr").filter(value.is_not_null()).pow(2).sum().sqrt() / count,
        count=count,
        missing=value.null_count(),
    )
    reach = pl.col("count").map_elements(
        lambda runs: t_quantile(level, runs - 1) if runs > 1 else math.nan, return_dtype=pl.Float64
    ).fill_nan(None) * pl.col("stderr")
    low, high = (pl.col("value") - reach).alias("low"), (pl.col("value") + reach).alias("high")
    return found.select(*keys, "value", "stderr", low, high, "within", "count", "missing")
