"""What tests of charts share: rows as a sweep returns them, and what a chart holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

_SCHEMA = {
    "run_a": pl.String,
    "site_a": pl.String,
    "step_a": pl.Int64,
    "run_b": pl.String,
    "site_b": pl.String,
    "step_b": pl.Int64,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n_groups": pl.Int64,
}
Side = tuple[str | None, str | None, int | None]


def swept(
    rows: Sequence[tuple[Side, Side | None, float | None, float | None]],
    *,
    measure: str = "cka",
    unit: str = "1",
    groups: int = 20,
) -> pl.DataFrame:
    """A sweep's frame: of each row the first side (run, site, step), the second, value and standard error."""
    cells = [(*a, *(b or (None, None, None)), value, error, groups) for a, b, value, error in rows]
    frame = pl.DataFrame(cells, schema=_SCHEMA, orient="row")
    told = {"measure": measure, "options": "{}", "part": "value", "estimator": "planted", "unit": unit}
    numbers = {"n": pl.lit(100), "dropped": pl.lit("{}"), "seed": pl.lit(None, pl.Int64)}
    return frame.with_columns(**{name: pl.lit(text) for name, text in told.items()}, **numbers)


def spec(chart: Any) -> dict[str, Any]:
    """The chart as Vega-Lite, which has compiled."""
    import vl_convert

    found = chart.to_dict()
    vl_convert.vegalite_to_vega(found)
    return found


def data(chart: Any) -> pl.DataFrame:
    """The rows in a chart; the most of them where it has several pictures."""
    return max((pl.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()), key=len)


def subtitle(chart: Any) -> str:
    """The line under a chart's title."""
    text = chart.to_dict()["title"].get("subtitle", "")
    return text if isinstance(text, str) else " ".join(text)


def svg(chart: Any) -> str:
    """The chart as it is drawn."""
    import vl_convert

    return vl_convert.vegalite_to_svg(chart.to_dict())
