from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from lamina.plot import intervals

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")

FRAME = pl.DataFrame(
    {
        "name": ["z", "z", "a", "a", "m"],
        "pair": ["0, 1", "0, 2", "0, 1", "0, 2", "0, 1"],
        "value": [0.5, 0.6, 0.7, math.nan, 0.8],
        "low": [0.4, 0.5, 0.6, math.nan, math.nan],
        "high": [0.6, 0.7, 0.9, math.nan, math.nan],
    }
)


def drawn(**options: Any) -> dict[str, Any]:
    return intervals(FRAME, title="Layers", x="CKA (1 = alike)", y="layer (site)", **options).to_dict()


def vega_rows(chart: dict[str, Any]) -> pl.DataFrame:
    (rows,) = chart["datasets"].values()
    return pl.DataFrame(rows)


def test_points_and_bars_are_those_of_the_frame() -> None:
    rows = vega_rows(drawn(by="pair"))
    kept = FRAME.filter(pl.col("value").is_finite())
    assert rows.select("name", "value", series="series").rows() == kept.select("name", "value", "pair").rows()
    bars = rows.filter(pl.col("low").is_finite()).select("low", "high").rows()
    assert bars == [(0.4, 0.6), (0.5, 0.7), (0.6, 0.9)]


def test_an_interval_that_is_unknown_leaves_its_point_alone() -> None:
    svg = vl_convert.vegalite_to_svg(drawn(by="pair"))
    assert svg.count('aria-roledescription="point"') == 4
    assert svg.count('aria-roledescription="rule mark"') + svg.count('aria-roledescription="rule"') == 3


def test_names_stand_in_order_of_appearance() -> None:
    chart = drawn(by="pair")
    assert chart["layer"][0]["encoding"]["y"]["sort"] == ["z", "a", "m"]


@pytest.mark.parametrize(("pairs", "colored"), [(1, False), (7, True), (8, False)])
def test_few_series_have_a_color_each(pairs: int, colored: bool) -> None:
    frame = pl.DataFrame({"name": "a", "pair": [str(k) for k in range(pairs)], "value": 0.5, "low": 0.4, "high": 0.6})
    chart = intervals(frame, title="Layers", x="CKA (1 = alike)", y="layer (site)", by="pair").to_dict()
    assert ("field" in chart["layer"][0]["encoding"]["color"]) == colored
    assert ("yOffset" in chart["layer"][0]["encoding"]) == (pairs > 1)
    vl_convert.vegalite_to_vega(chart)


def test_the_chart_says_what_it_shows_in_which_unit() -> None:
    axes = {axis["title"] for axis in vl_convert.vegalite_to_vega(drawn())["axes"] if "title" in axis}
    assert axes == {"CKA (1 = alike)", "layer (site)"}
    assert drawn()["title"]["text"] == "Layers"


def test_a_frame_without_rows_gives_a_chart_without_points() -> None:
    chart = intervals(FRAME.clear(), title="Layers", x="CKA (1 = alike)", y="layer (site)", by="pair").to_dict()
    vl_convert.vegalite_to_vega(chart)
