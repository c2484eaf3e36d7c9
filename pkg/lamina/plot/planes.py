"""Points on planes: one square picture a step, side by side, colored by label."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.plot.theme import altair, label_scale, titled

_SIDE = 300
_LABELS = 20
"""Most classes that get a color of their own; with more, one color says more than repeated ones."""


def planes(frame: pl.DataFrame, *, title: str, unit: str, subtitle: str | None = None) -> Any:
    """Draw points on one plane a step, two pictures a row, each on its own scale with equal units on both axes.

    Args:
        frame: Columns `step`, `panel` (the picture's heading), `x`, `y`, `example` and, where known, `label` (text).
        title: What the chart shows.
        unit: Unit of the axes.
        subtitle: A second line under the title.

    Returns:
        An Altair chart. Labels of one or two characters are drawn as such, so that color is not needed to read them.

    Raises:
        MissingExtraError: If altair is not installed.

    Example:
        >>> frame = pl.DataFrame({"step": 0, "panel": "step 0", "x": [0.0, 1.0], "y": [1.0, 0.0], "example": [0, 1],
        ...                       "label": ["3", "8"]})
        >>> chart = planes(frame, title="Last layer", unit="activation units")
    """
    alt = altair()
    labels = sorted(frame["label"].drop_nulls().unique().to_list(), key=_natural) if "label" in frame.columns else []
    colored = 1 < len(labels) <= _LABELS
    panels = []
    for (panel,), points in frame.sort("step").group_by("panel", maintain_order=True):
        reach = 1.08 * max(float(points.select(pl.max_horizontal(pl.col("x", "y").abs().max())).item()), 1e-12)
        scale = alt.Scale(domain=[-reach, reach], nice=False)
        axis = alt.Axis(tickCount=5)
        chart = alt.Chart(points.drop("panel"), title=alt.TitleParams(str(panel), fontSize=13, offset=6))
        short = colored and max(len(label) for label in labels) <= 2
        marks = chart.mark_text(fontSize=10, fontWeight="bold") if short else chart.mark_circle(size=22, opacity=0.7)
        marks = marks.encode(
            x=alt.X("x:Q", title=f"direction 1 ({unit})", scale=scale, axis=axis),
            y=alt.Y("y:Q", title=f"direction 2 ({unit})", scale=scale, axis=axis),
            tooltip=[name for name in ("example", "label", "step") if name in frame.columns],
        )
        if short:
            marks = marks.encode(text="label:N")
        if colored:
            legend = alt.Legend(orient="bottom", columns=10, symbolType="circle")
            marks = marks.encode(color=alt.Color("label:N", title="label", scale=label_scale(labels), legend=legend))
        panels.append(marks.properties(width=_SIDE, height=_SIDE))
    # Laid out by their plotting areas, so that these stand in rows and columns whatever the axes' numbers take.
    return titled(alt.concat(*panels, columns=2, bounds="flush", spacing={"row": 82, "column": 84}), title, subtitle)


def _natural(label: str) -> tuple[int, float, str]:
    """Sort labels that are numbers by value, before the others by name."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
