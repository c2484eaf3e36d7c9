"""Scale curves: values over a size, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.errors import SchemaError
from lamina.plot.bands import banded
from lamina.plot.frames import NUMBERS, fold, read, told_apart
from lamina.plot.lines import lines
from lamina.plot.steps import value_ticks
from lamina.plot.theme import altair
from lamina.plot.words import named, shared, with_unit

_TITLES = {
    "n": "rows (logarithmic)",
    "n_groups": "groups (logarithmic)",
    "step": "step (optimizer updates, logarithmic)",
}

_TICKS = 10
"""Most sizes that are ticks of their own."""


def scaling(
    frame: pl.DataFrame | pl.LazyFrame,
    x: str = "n",
    *,
    by: str | Sequence[str] | None = None,
    title: str | None = None,
    y: str | None = None,
    subtitle: str | None = None,
    log: bool = True,
) -> Any:
    """Draw a measure over a size: rows, parameters, width; a line for each whatever else rows differ in.

    A power law is a straight line on two logarithmic axes. Several runs at one size are averaged; the band is that of
    `lamina.plot.curves`.

    Args:
        frame: Rows of a sweep, or any frame with `value` and the column named by `x`. What the sizes of runs are stands
            in their configurations: join `runs.configs()`.
        x: A column of numbers above 0: by default the rows that an estimate stands on.
        by: Columns with a line of their own for each of their values; by default all that differ but `x` and the run.
        title: What the chart shows; by default the measure's name.
        y: The title of the y axis; by default the measure's name and unit.
        subtitle: A line under the title; by default what all values have in common, and the band.
        log: Whether the y axis is logarithmic; values of 0 and less are then left out.

    Returns:
        An Altair chart.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: There is no such column of sizes, there are several values for one place, or several units.

    Example:
        >>> frame = pl.DataFrame({"n": [100, 1000, 10_000], "value": [8.1, 9.2, 9.7], "measure": "twonn"})
        >>> chart = scaling(frame)
    """
    alt = altair()
    frame = fold(read(frame), "site", "step")
    if x not in frame.columns or not frame[x].dtype.is_numeric():
        raise SchemaError(f"the frame has no numbers in a column {x!r}", hint=f"it has {', '.join(frame.columns)}")
    frame = frame.with_columns(size=pl.col(x).cast(pl.Float64)).filter(pl.col("size") > 0)
    frame, by = told_apart(frame.drop(x) if x not in NUMBERS else frame, by, "size")
    data, words = banded(frame, ["series", "size"])
    ends = data.select(pl.min("size").alias("low"), pl.max("size").alias("high")).row(0)
    sizes = sorted(data["size"].unique())
    axis = alt.Axis(values=sizes if len(sizes) <= _TICKS else value_ticks(*ends), grid=False)
    scale = alt.Scale(type="log", nice=False, padding=8)
    return lines(
        data,
        alt.X("size:Q", title=_TITLES.get(x, f"{x} (logarithmic)"), scale=scale, axis=axis),
        y=y or with_unit(frame),
        by=", ".join(by),
        log=log,
        title=title or f"{named(frame)} against {x}",
        subtitle=shared(frame, words, without=[x, *by]) if subtitle is None else subtitle,
    )
