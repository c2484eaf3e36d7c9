"""A matrix as colored cells, with its numbers in them."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from lamina.plot.theme import altair, titled

_WIDTH = 525
"""Most pixels of the plotting area from left to right."""
_CELL = (86, 46)
"""Most pixels of a cell, width and height."""
_TEXT = 46
"""Fewest pixels of a cell's width at which its number is written into it."""


def heatmap(
    frame: pl.DataFrame,
    *,
    title: str,
    axis: str,
    value: str,
    subtitle: str | None = None,
) -> Any:
    """Draw a matrix of values from 0 to 1, rows and columns in order of appearance, dark where they are large.

    Args:
        frame: Columns `row` and `column` (text), `value` and, where known, `error` (the half-length of an error
            bar), one row a cell. A cell that is null or not finite stays empty.
        title: What the chart shows.
        axis: The title of both axes, with its unit.
        value: The title of the color scale, with its unit.
        subtitle: A second line under the title.

    Returns:
        An Altair chart. Cells carry their numbers as long as they are wide enough for them; the tooltip has them
        always.

    Raises:
        MissingExtraError: If altair is not installed.

    Example:
        >>> frame = pl.DataFrame({"row": ["a", "a", "b"], "column": ["a", "b", "b"], "value": [1.0, 0.25, 1.0]})
        >>> chart = heatmap(frame, title="Similarity of two layers", axis="layer (site)", value="CKA (1 = alike)")
    """
    alt = altair()
    # An error that nobody gave is null in every cell.
    data = frame.with_columns(error=pl.col("error") if "error" in frame.columns else pl.lit(None, pl.Float64))
    data = data.select("row", "column", "value", "error").filter(pl.col("value").is_finite())
    data = data.with_columns(
        text=pl.col("value").map_elements(lambda number: f"{number:.2f}", return_dtype=pl.String),
        spread=pl.col("error").map_elements(_spread, return_dtype=pl.String).fill_null(""),
    )
    rows, columns = (frame[name].unique(maintain_order=True).to_list() for name in ("row", "column"))
    width = min(_CELL[0], _WIDTH // max(len(columns), 1))
    height = round(width * _CELL[1] / _CELL[0]) if width >= _TEXT else width
    turned = any(len(name) > 10 for name in columns)
    labels = {"labelAngle": -40, "labelAlign": "right"} if turned else {"labelAngle": 0}
    grid = {"domain": False, "ticks": False, "labelLimit": 230, "maxExtent": 250}
    base = alt.Chart(data).encode(
        x=alt.X("column:N", title=axis, sort=columns, axis=alt.Axis(**grid, **labels)),
        y=alt.Y("row:N", title=axis, sort=rows, axis=alt.Axis(**grid)),
    )
    scale = alt.Scale(domain=[0, 1], clamp=True, scheme="blues")
    legend = alt.Legend(orient="right", gradientLength=min(200, max(height * len(rows), 80)), titleLimit=200)
    exact = [alt.Tooltip("value:Q", format=".4f"), alt.Tooltip("error:Q", format=".2~g")]
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color("value:Q", title=value.split("\n"), scale=scale, legend=legend),
        tooltip=["row:N", "column:N", *exact],
    )
    layers = [cells]
    if width >= _TEXT:
        ink = alt.condition(alt.datum["value"] > 0.55, alt.value("white"), alt.value("#222"))
        alone, above, below = ("datum.spread == ''", 0), ("datum.spread != ''", -7), ("datum.spread != ''", 9)
        for name, size, (where, down) in (("text", 13, alone), ("text", 13, above), ("spread", 11, below)):
            numbers = base.transform_filter(where).mark_text(fontSize=size, dy=down)
            layers.append(numbers.encode(text=f"{name}:N", color=ink))
    chart = alt.layer(*layers).properties(width=width * len(columns), height=height * len(rows))
    return titled(chart, title, subtitle)


def _spread(error: float) -> str:
    """Return an error bar with one significant digit; none for a cell that has no error, such as 1 by definition."""
    if not math.isfinite(error) or error == 0:
        return ""
    return f"± {error:.1g}" if error >= 0.0005 else "± <0.001"
