"""Estimates as points with their intervals, a line for each name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.plot.bands import banded
from lamina.plot.frames import SIDES, differing, fold, joined, read, within
from lamina.plot.theme import WIDTH, altair, chart_of, line_scale, titled
from lamina.plot.words import named, shared, with_unit

_COLORED = 7
"""Most series that get a color of their own."""
_APART = 13
"""Pixels between two series of one name."""


def intervals(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    by: str | Sequence[str] | None = None,
    title: str | None = None,
    x: str | None = None,
    subtitle: str | None = None,
) -> Any:
    """Draw estimates as points with their 95 % intervals, sites from top to bottom in order of appearance.

    Args:
        frame: Rows of a sweep, or any frame with `value` and, where known, `stderr` and `n_groups`, or `low` and
            `high`. What stands from top to bottom is the site or, where that is the same in all rows, the first column
            in which they differ. Several runs are averaged, as by `lamina.plot.curves`, unless values compare runs.
        by: Columns whose values stand under each other within a site, colored if there are at most 7; by default all
            others in which rows differ.
        title: What the chart shows; by default the measure's name.
        x: The title of the values' axis; by default the measure's name and unit.
        subtitle: A line under the title; by default what all values have in common, and what the bars are.

    Returns:
        An Altair chart. A value without an interval is a point alone.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: There are no values, several for one place, or several units.

    Example:
        >>> frame = pl.DataFrame({"site": ["a", "b"], "value": [0.5, 0.7], "stderr": 0.1, "n_groups": 20})
        >>> chart = intervals(frame)
    """
    alt = altair()
    frame = read(frame)
    averaged = within(frame, "run")
    frame = fold(frame, *SIDES)
    asked = [by] if isinstance(by, str) else list(by or [])
    free = ["run"] if averaged and "run" not in asked else []
    names = differing(frame, [*free, *asked])
    main = "site" if "site" in names else next(iter(names), "site")
    under = asked if by is not None else [name for name in names if name != main]
    frame = frame.with_columns(name=joined(frame, [main]), series=joined(frame, under))
    frame = frame if free else frame.with_columns(run=pl.lit(""))
    places = frame["name"].unique(maintain_order=True).to_list()
    series = frame["series"].unique(maintain_order=True).to_list()
    data, words = banded(frame, ["name", "series"])
    several = len(series) > 1
    color = alt.value(line_scale([""]).range[0])
    legend = ", ".join(under)
    if several and len(series) <= _COLORED:
        look = alt.Legend(orient="bottom", columns=4, symbolType="circle")
        color = alt.Color("series:N", title=legend, scale=line_scale(series), legend=look)
    scale = alt.Scale(zero=False, padding=8)
    value = alt.X("value:Q", title=x or with_unit(frame), scale=scale, axis=alt.Axis(tickCount=8))
    grid = alt.Axis(grid=True, ticks=False, labelLimit=240, maxExtent=260)
    base = chart_of(data).encode(
        y=alt.Y("name:N", title=_AXES.get(main, main), sort=places, axis=grid),
        color=color,
        tooltip=[
            alt.Tooltip("name:N", title=main),
            *([alt.Tooltip("series:N", title=legend)] if several else []),
            *(alt.Tooltip(f"{column}:Q", format=".4~g") for column in ("value", "low", "high")),
        ],
        **({"yOffset": alt.YOffset("series:N", sort=series)} if several else {}),
    )
    points = base.mark_point(filled=True, size=46, opacity=1).encode(x=value)
    reach = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    bars = reach.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    room = max(30, _APART * len(series) + 14)
    chart = alt.layer(points, bars).properties(width=WIDTH - 140, height=room * max(len(places), 1))
    if subtitle is None:
        subtitle = shared(frame, words.replace("band:", "bars:"), without=[main, *under])
    return titled(chart, title or f"{named(frame)} by {main}", subtitle)


_AXES = {"site": "layer (site)", "step": "step (optimizer updates)"}
"""Titles of the names' axis."""
