"""A measure of pairs of sites, or of sites and steps, as colored cells with their numbers in them."""

from __future__ import annotations

import math
from typing import Any

import polars as pl

from lamina.errors import SchemaError
from lamina.plot.cells import Cells, cells
from lamina.plot.theme import altair, chart_of, titled
from lamina.plot.words import declared, named, shared, with_unit

_WIDTH = 525
"""Most pixels of the plotting area from left to right."""
_CELL = (86, 46)
"""Most pixels of a cell, width and height."""
_TEXT = 46
"""Fewest pixels of a cell's width at which its number is written into it."""
_LETTER = 8
"""Pixels of a letter of an axis, at most."""
_PICTURES = 6
_INK = ("white", "#222")
_DARK = 0.55
"""Share of the color scale from which on numbers are white."""


def heatmap(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    columns: str | None = None,
    title: str | None = None,
    subtitle: str | None = None,
) -> Any:
    """Draw a measure of all pairs of sites as a matrix, dark where it is large; of steps or runs where sites are alike.

    A measure of one side is drawn by site and step, or by site and `columns`. Several runs are averaged, with the
    standard error of that mean (`lamina.summarize`) below each number; of one run it is the estimate's own. Values that
    compare runs are averaged over the pairs of runs, without an error: such pairs are not independent.

    Args:
        frame: Rows of a sweep of one measure: site_a, site_b, value, and so on. What else rows differ in, such as the
            step, makes pictures of their own, up to 6. Where a measure sees both sides alike, a pair that has one
            direction stands for both. Cells without a value stay empty.
        columns: Of a measure of one side: the column whose values stand from left to right in place of steps, such as
            a `head` that `part` was renamed to.
        title: What the chart shows; by default the measure's name.
        subtitle: A line under the title; by default what all values have in common.

    Returns:
        An Altair chart, rows and columns in order of appearance, steps ascending. Similarities are colored on a scale
        from 0 to 1, all others from their least to their greatest value. Cells carry their numbers as long as they are
        wide enough for them; the tooltip has them always.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: A cell has several values, there are several units, or more than 6 pictures; `columns` for a frame
            that compares, or that has no such column.

    Example:
        >>> frame = pl.DataFrame({"site_a": ["a", "a", "b"], "site_b": ["a", "b", "b"], "value": [1.0, 0.25, 1.0]})
        >>> chart = heatmap(frame, title="Similarity of two layers")
    """
    alt = altair()
    found = cells(frame, columns)
    panels = found.data["panel"].unique(maintain_order=True).to_list() or [""]
    if len(panels) > _PICTURES:
        raise SchemaError(
            f"there are {len(panels)} pictures to draw, and room for {_PICTURES}",
            hint=f"filter to fewer: {panels[0]}, …",
        )
    known = declared(found.frame)
    numbers = found.data["value"].drop_nulls()
    within = numbers.is_empty() or (numbers.min() >= -0.5 and numbers.max() <= 1.05)  # pyright: ignore
    alike = within and (known is None or known.larger_is_more_similar is True)
    low, high = (0.0, 1.0) if alike or numbers.is_empty() else (float(numbers.min()), float(numbers.max()))  # pyright: ignore
    unit = "1 = alike" if alike and known is not None else None
    heading = f"{named(found.frame)} ({unit})" if unit else with_unit(found.frame)
    pictures = [_picture(alt, found, panel, (low, high), heading, alone=len(panels) == 1) for panel in panels]
    if subtitle is None:
        subtitle = shared(found.frame, found.words, without=found.used)
    title = title or f"{named(found.frame)} by {found.what}"
    width = min(_CELL[0], _WIDTH // max(len(found.columns), 1)) * len(found.columns)
    if len(pictures) == 1:
        return titled(pictures[0], title, subtitle, letters=max(60, width // 6 + 30))
    return titled(alt.concat(*pictures, columns=2, spacing={"row": 40, "column": 30}), title, subtitle)


def _picture(alt: Any, found: Cells, panel: str, ends: tuple[float, float], heading: str, *, alone: bool) -> Any:
    """Draw one matrix; several stand two in a row."""
    low, high = ends
    plain = (low, high) == (0.0, 1.0)
    data = found.data.filter(pl.col("value").is_not_null(), panel=panel)
    data = data.select(
        "row",
        "column",
        "value",
        "error",
        text=pl.col("value").map_elements(lambda number: _text(number, plain), return_dtype=pl.String),
        spread=pl.col("error").map_elements(_spread, return_dtype=pl.String).fill_null(""),
    )
    width = min(_CELL[0], (_WIDTH if alone else _WIDTH // 2) // max(len(found.columns), 1))
    height = round(width * _CELL[1] / _CELL[0]) if width >= _TEXT else max(width, 12)
    longest = max(map(len, found.columns), default=0)
    turned = longest > 10 or (width < _TEXT and longest * _LETTER > width)
    labels = {"labelAngle": -40, "labelAlign": "right"} if turned else {"labelAngle": 0}
    grid = {"domain": False, "ticks": False, "labelLimit": 230, "maxExtent": 250}
    base = chart_of(data).encode(
        x=alt.X("column:N", title=found.titles[1], sort=found.columns, axis=alt.Axis(**grid, **labels)),
        y=alt.Y("row:N", title=found.titles[0], sort=found.rows, axis=alt.Axis(**grid)),
    )
    crosses = low < 0 < high and not plain
    most = max(-low, high)
    domain = [-most, most] if crosses else [low, high]
    scale = alt.Scale(domain=domain, clamp=True, scheme="redblue" if crosses else "blues", nice=False)
    length = min(200, max(height * len(found.rows), 80))
    legend = alt.Legend(orient="right", gradientLength=length, titleLimit=200, tickCount=5)
    exact = [alt.Tooltip("value:Q", format=".4~g"), alt.Tooltip("error:Q", format=".2~g")]
    drawn = base.mark_rect(stroke="white", strokeWidth=2 if width >= _TEXT else 0.5).encode(
        color=alt.Color("value:Q", title=heading.replace(" (", "\n(", 1).split("\n"), scale=scale, legend=legend),
        tooltip=["row:N", "column:N", *exact],
    )
    layers = [drawn]
    if width >= _TEXT:
        dark = f"abs(datum.value) > {_DARK * most}" if crosses else f"datum.value > {low + _DARK * (high - low)}"
        ink = alt.condition(dark, alt.value(_INK[0]), alt.value(_INK[1]))
        single, above, below = ("datum.spread == ''", 0), ("datum.spread != ''", -7), ("datum.spread != ''", 9)
        for name, size, (where, down) in (("text", 13, single), ("text", 13, above), ("spread", 11, below)):
            written = base.transform_filter(where).mark_text(fontSize=size, dy=down)
            layers.append(written.encode(text=f"{name}:N", color=ink))
    size = {"width": width * max(len(found.columns), 1), "height": height * max(len(found.rows), 1)}
    top = {} if alone else {"title": alt.TitleParams(panel, fontSize=13, offset=6)}
    return alt.layer(*layers).properties(**size, **top)


def _text(number: float, plain: bool) -> str:
    return f"{number:.2f}" if plain else f"{number:.3g}"


def _spread(error: float) -> str:
    """Return an error bar with one significant digit; none for a cell that has no error, such as 1 by definition."""
    if not math.isfinite(error) or error == 0:
        return ""
    return f"± {error:.1g}" if error >= 0.0005 else "± <0.001"
