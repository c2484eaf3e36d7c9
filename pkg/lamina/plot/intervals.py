"""Estimates as points with their intervals, a line for each name."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.plot.theme import WIDTH, altair, line_scale, titled

_COLORED = 7
"""Most series that get a color of their own."""
_APART = 13
"""Pixels between two series of one name."""


def intervals(
    frame: pl.DataFrame,
    *,
    title: str,
    x: str,
    y: str,
    by: str | None = None,
    subtitle: str | None = None,
) -> Any:
    """Draw estimates as points with their intervals, names from top to bottom in order of appearance.

    Args:
        frame: Columns `name` (text), `value`, `low`, `high`, and the one named by `by`. Values that are not finite
            are left out; an interval that is not finite leaves its point alone.
        title: What the chart shows.
        x: The title of the values' axis, with its unit.
        y: The title of the names' axis, with its unit.
        by: A text column: its values stand under each other within a name, colored if there are at most 7.
        subtitle: A second line under the title.

    Returns:
        An Altair chart.

    Raises:
        MissingExtraError: If altair is not installed.

    Example:
        >>> frame = pl.DataFrame({"name": ["a", "b"], "value": [0.5, 0.7], "low": [0.4, 0.6], "high": [0.6, 0.8]})
        >>> chart = intervals(frame, title="Two layers", x="CKA (1 = alike)", y="layer (site)")
    """
    alt = altair()
    data = frame.filter(pl.col("value").is_finite()).select(
        "name", "value", "low", "high", series=pl.col(by) if by else pl.lit("")
    )
    names = data["name"].unique(maintain_order=True).to_list()
    series = data["series"].unique(maintain_order=True).to_list()
    several = len(series) > 1
    color = alt.value(line_scale([""]).range[0])
    if several and len(series) <= _COLORED:
        legend = alt.Legend(orient="bottom", columns=4, symbolType="circle")
        color = alt.Color("series:N", title=by, scale=line_scale(series), legend=legend)
    scale = alt.Scale(zero=False, padding=8)
    value = alt.X("value:Q", title=x, scale=scale, axis=alt.Axis(tickCount=8))
    base = alt.Chart(data).encode(
        y=alt.Y("name:N", title=y, sort=names, axis=alt.Axis(grid=True, ticks=False, labelLimit=240, maxExtent=260)),
        color=color,
        tooltip=[
            "name:N",
            *([alt.Tooltip("series:N", title=by)] if several else []),
            *(alt.Tooltip(f"{column}:Q", format=".4~g") for column in ("value", "low", "high")),
        ],
        **({"yOffset": alt.YOffset("series:N", sort=series)} if several else {}),
    )
    points = base.mark_point(filled=True, size=46, opacity=1).encode(x=value)
    reach = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    bars = reach.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    room = max(30, _APART * len(series) + 14)
    chart = alt.layer(points, bars).properties(width=WIDTH - 140, height=room * max(len(names), 1))
    return titled(chart, title, subtitle)
