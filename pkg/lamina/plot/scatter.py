"""Rows as points, one picture a step, with what is known of each row under the pointer."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.errors import SchemaError
from lamina.plot.theme import altair, chart_of, label_scale, square, titled

_SIDE = 300
"""Pixels of a picture beside another one."""
_ALONE = 460
"""Pixels of a picture by itself."""
_LABELS = 20
"""Most classes that get a color of their own; with more, one color says more than repeated ones."""
_POINTS = 4000
"""Most points of a picture."""
_PICTURES = 6


def scatter(
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    color: str | None = None,
    title: str = "Rows in the plane",
    unit: str = "units of the features",
    subtitle: str | None = None,
) -> Any:
    """Draw rows as points at `x` and `y`; every other column is shown for the point under the pointer.

    A frame holds names of rows and what is known of them, such as `run.activations(site).drop(site)` joined with two
    coordinates, and never their vectors: those stay in the run, where `row` names them.

    Args:
        frame: Columns `x` and `y`, and of single values whatever tells rows apart: row, example, position, label,
            token. Rows of several steps stand in a picture for each; a text column `panel` makes the pictures instead,
            and is their heading. Points that are not finite are left out.
        color: A column to color by; by default `label` where there is one. Texts and up to 20 whole numbers are
            classes: those of one or two characters are drawn as such, so that color is not needed to read them.
        title: What the chart shows.
        unit: Unit of both axes.
        subtitle: A line under the title; by default how many rows there are.

    Returns:
        An Altair chart: pictures of at most 4,000 rows, spread over all in their order, two in a row, each on its
        own scale with equal units on both axes.

    Raises:
        MissingExtraError: If altair is not installed.
        SchemaError: x or y is missing, a column holds vectors, there is no such color, or there are more than 6 steps.

    Example:
        >>> frame = pl.DataFrame({"row": [0, 1], "x": [0.0, 1.0], "y": [1.0, 0.0], "label": ["3", "8"]})
        >>> chart = scatter(frame)
    """
    alt = altair()
    frame = _checked(frame)
    if color is None and "label" in frame.columns:
        color = "label"
    if color is not None and color not in frame.columns:
        raise SchemaError(f"the frame has no column {color!r}", hint=f"it has {', '.join(frame.columns)}")
    if "panel" not in frame.columns:
        steps = frame["step"].drop_nulls().unique().len() if "step" in frame.columns else 1
        heading = pl.format("step {}", "step") if steps > 1 else pl.lit("")
        frame = frame.sort("step", maintain_order=True) if steps > 1 else frame
        frame = frame.with_columns(panel=heading)
    names = frame["panel"].unique(maintain_order=True).to_list()
    if len(names) > _PICTURES:
        raise SchemaError(
            f"there are {len(names)} pictures to draw, and room for {_PICTURES}", hint="filter to fewer steps"
        )
    labels = _classes(frame, color)
    colored = 1 < len(labels) <= _LABELS
    short = colored and max(len(label) for label in labels) <= 2
    side = _SIDE if len(names) > 1 else _ALONE
    tips = [name for name in frame.columns if name not in ("x", "y", "panel")]
    panels, drawn = [], 0
    for name in names:
        points = frame.filter(pl.col("panel").eq_missing(pl.lit(name))).drop("panel")
        points = (
            points.gather([k * points.height // _POINTS for k in range(_POINTS)]) if points.height > _POINTS else points
        )
        drawn += points.height
        heading = {"title": alt.TitleParams(str(name), fontSize=13, offset=6)} if len(names) > 1 else {}
        x, y = square(points, unit)
        if colored:
            points = points.with_columns(pl.col(color).cast(pl.String))
        chart = chart_of(points, **heading)
        marks = chart.mark_text(fontSize=10, fontWeight="bold") if short else chart.mark_circle(size=22, opacity=0.7)
        marks = marks.encode(x=x, y=y, tooltip=[_tip(alt, name, points[name].dtype) for name in tips])
        if short:
            marks = marks.encode(text=f"{_field(color)}:N")
        if colored:
            legend = alt.Legend(orient="bottom", columns=10, symbolType="circle")
            marks = marks.encode(
                color=alt.Color(f"{_field(color)}:N", title=color, scale=label_scale(labels), legend=legend)
            )
        elif color is not None and frame[color].dtype.is_numeric():
            marks = marks.encode(color=alt.Color(f"{_field(color)}:Q", title=color, scale=alt.Scale(scheme="viridis")))
        panels.append(marks.properties(width=side, height=side))
    if subtitle is None:
        subtitle = f"{drawn:,} rows" if drawn == frame.height else f"{drawn:,} of {frame.height:,} rows"
    if len(panels) == 1:
        return titled(panels[0], title, subtitle, letters=92)
    # Laid out by their plotting areas, so that these stand in rows and columns whatever the axes' numbers take.
    return titled(alt.concat(*panels, columns=2, bounds="flush", spacing={"row": 82, "column": 84}), title, subtitle)


def _checked(frame: pl.DataFrame | pl.LazyFrame) -> pl.DataFrame:
    """Return the rows whose x and y are finite."""
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        raise SchemaError(f"a plot takes a frame of Polars, not {type(frame).__name__}")
    for name, dtype in frame.lazy().collect_schema().items():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            raise SchemaError(
                f"the column {name!r} holds {dtype}, which no chart shows",
                hint="project the vectors to x and y, and drop the column; row names them",
            )
    frame = frame.lazy().collect()
    for name in ("x", "y"):
        if name not in frame.columns or not frame[name].dtype.is_numeric():
            raise SchemaError(
                f"the frame has no numbers in a column {name!r}", hint=f"it has {', '.join(frame.columns)}"
            )
    return frame.filter(pl.all_horizontal(pl.col("x", "y").cast(pl.Float64).is_finite()))


def _classes(frame: pl.DataFrame, color: str | None) -> list[str]:
    """Return the values to color by, in order; none if they are numbers that are no classes."""
    if color is None:
        return []
    values = frame[color].drop_nulls().unique()
    if values.dtype.is_float() or (values.dtype.is_integer() and values.len() > _LABELS):
        return []
    return sorted(values.cast(pl.String).to_list(), key=_natural)


def _field(name: str | None) -> str:
    """Return a column's name as Vega-Lite takes it: dots and brackets there mean what is inside of a value."""
    return "".join(f"\\{letter}" if letter in ".[]:" else letter for letter in str(name))


def _tip(alt: Any, name: str, dtype: pl.DataType) -> Any:
    return alt.Tooltip(field=_field(name), type="quantitative" if dtype.is_float() else "nominal", title=name)


def _natural(label: str) -> tuple[int, float, str]:
    """Sort labels that are numbers by value, before the others by name."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label
