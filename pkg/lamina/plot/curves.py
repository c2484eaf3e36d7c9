"""Values over steps: a line each for what is told apart, with a band around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.plot.bands import banded
from lamina.plot.frames import read, told_apart, within
from lamina.plot.lines import lines
from lamina.plot.steps import spread_steps, step_axis, thin
from lamina.plot.words import named, shared, with_unit

_STEPS = 250
"""Most steps drawn for one line."""
_POINTS = 4000
"""Most points drawn in one chart, over all its lines."""


def curves(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    by: str | Sequence[str] | None = None,
    title: str | None = None,
    y: str | None = None,
    subtitle: str | None = None,
    log: bool = False,
) -> Any:
    """Draw a measure over logarithmic steps: a line for each site, part or whatever else rows differ in.

    Several runs are averaged. The band is said under the title: of estimates of several runs it is the 95 % interval of
    their mean (`lamina.summarize`), of one run's estimates each one's own, and of plain numbers of several runs their
    range.

    Args:
        frame: Rows of a sweep, of `Estimate.to_frame()` with a column `step`, or of any frame with `step`, `value` and
            possibly `run`. A second side that is always one step, as in a comparison with the end, is named under the
            title. Values that are not finite are left out, on a logarithmic axis also those of 0 and less.
        by: Columns with a line of their own for each of their values; by default all that differ but the step, and the
            run unless values compare runs. `"run"` draws each run by itself.
        title: What the chart shows; by default the measure's name.
        y: The title of the y axis; by default the measure's name and unit.
        subtitle: A line under the title; by default what all values have in common, and the band.
        log: Whether the y axis is logarithmic.

    Returns:
        An Altair chart. At most 250 steps are drawn: of estimates some, spread over the axis; plain numbers are
        averaged within bins of it.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: There are no values, several for one place, or several units.

    Example:
        >>> frame = pl.DataFrame({"run": ["a", "b"] * 2, "step": [0, 0, 9, 9], "value": [2.0, 1.0, 1.0, 0.5]})
        >>> chart = curves(frame, title="Training loss", y="cross-entropy (nats)")
    """
    frame, against = _along(read(frame))
    frame, by = told_apart(frame, by, "step")
    kept = frame.filter(pl.col("value").is_not_null(), pl.col("step").is_not_null())
    limit = min(_STEPS, max(_POINTS // max(kept["series"].n_unique(), 1), 2))
    if "stderr" in kept.columns:
        steps = spread_steps(sorted(kept["step"].unique()), limit)
        kept = kept.filter(pl.col("step").is_in(steps))
    elif kept["step"].n_unique() > limit:
        kept = thin(kept, ["run", "series"], limit)
    data, words = banded(kept, ["series", "step"])
    if subtitle is None:
        subtitle = shared(frame, against, words, without=["step", *by])
    last = int(data["step"].max() or 0)  # pyright: ignore[reportArgumentType]
    return lines(
        data,
        step_axis(last),
        y=y or with_unit(frame),
        by=", ".join(by),
        log=log,
        title=title or f"{named(frame)} over training",
        subtitle=subtitle,
    )


def _along(frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Return the frame with one `step`, along which lines go, and in words what the other side's is."""
    a, b = frame["step_a"], frame["step_b"]
    if within(frame, "step"):
        return frame.with_columns(step="step_a").drop("step_a", "step_b"), ""
    if a.n_unique() == 1 < b.n_unique():
        a, b = b, a
    frame = frame.with_columns(step=a).drop("step_a", "step_b")
    if b.n_unique() == 1:
        return frame, f"compared with step {b[0]:,}"
    return frame.with_columns(b.alias("compared with step")), ""
