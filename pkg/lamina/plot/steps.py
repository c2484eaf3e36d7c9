"""The step axis: logarithmic, with step 0 on it, and never more points than a picture can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.plot.theme import altair


def step_ticks(last: int) -> list[int]:
    """Return readable ticks from 0 to at least one below `last`: powers of ten, with 2 and 5 between on short axes.

    Example:
        >>> step_ticks(1500)
        [0, 1, 10, 100, 1000]
        >>> step_ticks(40)
        [0, 1, 2, 5, 10, 20]
    """
    factors = (1, 2, 5) if last < 100 else (1,)
    decades = range(int(math.log10(max(last, 1))) + 1)
    return [0, *(factor * 10**decade for decade in decades for factor in factors if factor * 10**decade <= last)]


def value_ticks(low: float | None, high: float | None) -> list[float]:
    """Return ticks for a logarithmic axis from `low` to `high`: powers of ten, on short axes also multiples of those.

    Example:
        >>> value_ticks(0.02, 300.0)
        [0.1, 1.0, 10.0, 100.0]
        >>> value_ticks(0.8, 4.0)
        [1.0, 2.0]
        >>> value_ticks(0.6, 1.7)
        [0.6, 0.7, 0.8, 0.9, 1.0, 1.5]
    """
    if low is None or high is None:
        return []
    factors = (1, 1.5, *range(2, 10)) if high < 3 * low else (1, 2, 5) if high < 30 * low else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{factor}e{decade}") for decade in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def step_axis(last: int) -> Any:
    """Return the x encoding of the column `step`: symmetric-log, so linear below step 1 and logarithmic above."""
    alt = altair()
    return alt.X(
        "step:Q",
        title="step (optimizer updates, logarithmic)",
        scale=alt.Scale(type="symlog", constant=1, domain=[0, max(last, 1)], nice=False),
        axis=alt.Axis(values=step_ticks(last), format=",d", grid=False),
    )


def spread_steps(steps: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the sorted `steps`, evenly spread on the logarithmic axis, first and last among them.

    Example:
        >>> spread_steps([0, 1, 2, 4, 8, 16, 32, 64], 4)
        [0, 4, 16, 64]
    """
    if len(steps) <= count:
        return list(steps)
    if count == 1:
        return [steps[-1]]
    low, high = math.log1p(steps[0]), math.log1p(steps[-1])
    chosen: list[int] = []
    for k in range(count):
        goal = low + (high - low) * k / (count - 1)
        left = [step for step in steps if not chosen or step > chosen[-1]]
        # Leave enough later steps for the places still to fill.
        reachable = left[: len(left) - (count - 1 - k)]
        chosen.append(min(reachable, key=lambda step: abs(math.log1p(step) - goal)))
    return chosen


def thin(frame: pl.DataFrame, by: Sequence[str], limit: int) -> pl.DataFrame:
    """Average `value` within at most `limit` bins of the step axis, separately for each value of the columns `by`.

    Args:
        frame: Columns `step`, `value` and those of `by`; steps of 0 and more.
        by: Columns whose values are kept apart.
        limit: Bins along the logarithmic axis.

    Returns:
        The columns of `by`, `step` (the least of its bin over the whole frame) and `value`; `frame` itself
        when it has at most `limit` different steps.
    """
    if frame["step"].n_unique() <= limit:
        return frame.select(*by, "step", "value")
    position = pl.col("step").log1p()
    binned = frame.with_columns(bin=(position / position.max() * (limit - 1)).floor().cast(pl.Int64))
    starts = binned.group_by("bin").agg(pl.col("step").min())
    means = binned.group_by(*by, "bin").agg(pl.col("value").mean())
    return means.join(starts, on="bin").select(*by, "step", "value").sort("step")
