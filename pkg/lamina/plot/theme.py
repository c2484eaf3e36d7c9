"""What every chart shares: colors that color-blind readers tell apart, type sizes, and the title."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import polars as pl

from lamina.extras import need

WIDTH = 660
"""Width of a chart's plotting area, pixels."""

# Okabe and Ito (2008), without the yellow that vanishes on white.
_LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
# Paul Tol's "muted" scheme and a gray: ten classes.
_LABELS = ["#332288", "#D45769", "#117733", "#2FA8C9", "#882255", "#A98F1B", "#44AA99", "#AA4499", "#7A7A2B", "#555555"]

_CONFIG: dict[str, Any] = {
    "background": "white",
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "title": {
        "anchor": "start",
        "fontSize": 16,
        "fontWeight": 600,
        "subtitleFontSize": 12.5,
        "subtitleColor": "#555555",
        "subtitlePadding": 4,
        "offset": 14,
    },
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12.5,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": "#e6e6e6",
        "domainColor": "#999999",
        "tickColor": "#999999",
    },
    "legend": {"labelFontSize": 12, "titleFontSize": 12.5, "titleFontWeight": "normal", "labelLimit": 240},
    "view": {"stroke": "transparent"},
}


def altair() -> Any:
    """Return the altair module, or raise MissingExtraError naming `lamina[report]`."""
    return need("altair", extra="report")


def line_scale(names: Sequence[str]) -> Any:
    """Return a color scale for `names` in their order: distinct hues for a few, a ramp for many.

    The ramp reads as depth when the names are a network's layers in order.
    """
    alt = altair()
    if len(names) <= len(_LINES):
        return alt.Scale(domain=list(names), range=_LINES[: len(names)])
    return alt.Scale(domain=list(names), scheme="viridis")


def label_scale(labels: Sequence[str]) -> Any:
    """Return a color scale for class labels: ten distinct colors, repeated when there are more classes."""
    repeats = -(-len(labels) // len(_LABELS))
    return altair().Scale(domain=list(labels), range=(_LABELS * repeats)[: len(labels)])


def chart_of(frame: pl.DataFrame, **options: Any) -> Any:
    """Return a chart with the frame's rows in it: all of them, where Altair by itself takes no more than 5,000."""
    alt = altair()
    texts = pl.selectors.temporal() | pl.selectors.categorical() | pl.selectors.decimal()
    return alt.Chart(alt.InlineData(values=frame.with_columns(texts.cast(pl.String)).to_dicts()), **options)


def square(points: pl.DataFrame, unit: str) -> tuple[Any, Any]:
    """Return encodings of the columns `x` and `y` for a square in which both axes have the same units."""
    alt = altair()
    ends = points.select(pl.col("x", "y").min().name.suffix("_low"), pl.col("x", "y").max().name.suffix("_high"))
    lows, highs = (ends.select(pl.col(f"^._{end}$").fill_null(0)).row(0) for end in ("low", "high"))
    reach = 1.08 * max(*((high - low) / 2 for low, high in zip(lows, highs, strict=True)), 1e-12)
    middles = [(low + high) / 2 for low, high in zip(lows, highs, strict=True)]
    return tuple(
        axis(
            f"{name}:Q",
            title=f"direction {k + 1} ({unit})",
            scale=alt.Scale(domain=[middles[k] - reach, middles[k] + reach], nice=False),
            axis=alt.Axis(tickCount=5),
        )
        for k, (name, axis) in enumerate((("x", alt.X), ("y", alt.Y)))
    )


def titled(chart: Any, title: str, subtitle: str | None = None, *, letters: int = 108) -> Any:
    """Return `chart` with the title, an optional subtitle and the common look; the last call on a chart.

    Args:
        chart: An Altair chart.
        title: What it shows.
        subtitle: What stands under the title, broken into lines.
        letters: Most letters of such a line.
    """
    params: dict[str, Any] = {"text": title}
    if subtitle:
        lines = textwrap.wrap(subtitle, letters)
        params["subtitle"] = lines[0] if len(lines) == 1 else lines
    return chart.properties(title=params).configure(**_CONFIG)
