"""Lines with their bands: what curves over steps, spectra and scale curves share."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.plot.steps import value_ticks
from lamina.plot.theme import WIDTH, altair, chart_of, line_scale, titled

_MARKED = 80
"""Most places of a line at which points are marked; with more they would hide the line."""


def lines(
    data: pl.DataFrame, x: Any, *, y: str, by: str, log: bool, title: str, subtitle: str, height: int = 260
) -> Any:
    """Draw `value` over the encoding `x` as a line for each `series`, and `low` to `high` as a band around it.

    Args:
        data: Columns `series`, the one of `x`, `value`, `low`, `high`, `runs`; sorted along x.
        x: An encoding of Altair.
        y: The title of the y axis, with its unit.
        by: The title of the legend; there is none for a single series.
        log: Whether the y axis is logarithmic; values of 0 and less are then left out, bands end where it ends.
        title: What the chart shows.
        subtitle: What stands under it.
        height: Pixels of the plotting area.
    """
    alt = altair()
    data = data.select("series", x.shorthand.partition(":")[0], "value", "low", "high", "runs")
    if log:
        data = data.filter(pl.col("value") > 0)
        least = data.select(pl.min_horizontal("value", pl.col("low").filter(pl.col("low") > 0).min()).min()).item()
        data = data.with_columns(low=pl.col("low").clip(lower_bound=least))
    names = data["series"].unique(maintain_order=True).to_list()
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    reach = data.select(low=pl.min_horizontal("value", "low").min(), high=pl.max_horizontal("value", "high").max()).row(
        0
    )
    ticks = value_ticks(*reach) if log else []
    axis = alt.Axis(values=ticks) if len(ticks) > 1 else alt.Axis(tickCount=6)
    color = alt.value(line_scale([""]).range[0])
    several = len(names) > 1
    if several:
        look = {"symbolType": "stroke", "symbolStrokeWidth": 3, "symbolOpacity": 1, "symbolLimit": 60}
        widest = max(len(name) for name in names)
        legend = alt.Legend(orient="bottom", columns=min(len(names), max(1, 96 // (widest + 5))), **look)
        color = alt.Color("series:N", title=by, scale=line_scale(names), legend=legend)
    base = chart_of(data).encode(x=x, color=color)
    numbers = ("value", *(name for name in ("low", "high") if data[name].is_not_null().any()))
    line = base.encode(
        y=alt.Y("value:Q", title=y, scale=scale, axis=axis),
        tooltip=[
            *([alt.Tooltip("series:N", title=by)] if several else []),
            alt.Tooltip(x.shorthand),
            *(alt.Tooltip(f"{name}:Q", format=".4~g") for name in numbers),
            *([alt.Tooltip("runs:Q")] if (data["runs"] > 1).any() else []),
        ],
    )
    layers = [line.mark_line(strokeWidth=2)]
    if data[x.shorthand.partition(":")[0]].n_unique() <= _MARKED:
        layers.append(line.mark_point(filled=True, size=22, opacity=1))
    if "low" in numbers:
        known = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
        band = known.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", scale=scale, axis=axis), y2="high:Q")
        layers.insert(0, band)
    return titled(alt.layer(*layers).properties(width=WIDTH, height=height), title, subtitle)
