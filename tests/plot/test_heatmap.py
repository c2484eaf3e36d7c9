from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from lamina.plot import heatmap

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")

NAMES = ["zeta", "alpha", "mu"]
VALUES = {("zeta", "alpha"): (0.25, 0.031), ("zeta", "mu"): (0.9, 0.0002), ("alpha", "mu"): (-0.02, math.nan)}


def frame() -> pl.DataFrame:
    """A symmetric matrix whose diagonal is 1 without an error."""
    cells = VALUES | {(column, row): numbers for (row, column), numbers in VALUES.items()}
    cells |= {(name, name): (1.0, 0.0) for name in NAMES}
    rows = [(row, column, *cells[row, column]) for row in NAMES for column in NAMES]
    return pl.DataFrame(rows, schema=["row", "column", "value", "error"], orient="row")


def drawn(data: pl.DataFrame, **options: Any) -> tuple[dict[str, Any], pl.DataFrame]:
    """The chart's specification, and the cells in it."""
    chart = heatmap(data, title="Layers", axis="layer (site)", value="CKA (1 = alike)", **options).to_dict()
    (cells,) = chart["datasets"].values()
    return chart, pl.DataFrame(cells)


def scene(chart: dict[str, Any]) -> str:
    return vl_convert.vegalite_to_svg(chart)


def test_cells_carry_the_values_and_errors_of_the_frame() -> None:
    _, cells = drawn(frame())
    assert cells.height == 9
    for row, column, value, text, spread in cells.select("row", "column", "value", "text", "spread").iter_rows():
        expected, error = (1.0, 0.0) if row == column else VALUES.get((row, column)) or VALUES[column, row]
        assert value == expected
        assert text == f"{expected:.2f}"
        assert spread == {0.031: "± 0.03", 0.0002: "± <0.001"}.get(error, "")


def test_rows_and_columns_stand_in_order_of_appearance() -> None:
    chart, _ = drawn(frame())
    for name, field in (("x", "column"), ("y", "row")):
        encoding = chart["layer"][0]["encoding"][name]
        assert (encoding["field"], encoding["sort"]) == (field, NAMES)
    svg = scene(chart)
    places = [svg.index(f">{name}<") for name in NAMES]
    assert places == sorted(places)


def test_every_number_is_written_once_into_its_cell() -> None:
    svg = scene(drawn(frame())[0])
    written = {"1.00": 3, "0.25": 2, "0.90": 2, "-0.02": 2, "± 0.03": 2, "± &lt;0.001": 2}
    assert {text: svg.count(f">{text}<") for text in written} == written
    assert not {text: svg.count(f">{text}<") for text in ("null", "NaN", "± nan") if f">{text}<" in svg}


def test_colors_are_those_of_a_scale_from_0_to_1_whatever_the_values() -> None:
    chart, _ = drawn(frame())
    assert chart["layer"][0]["encoding"]["color"]["scale"]["domain"] == [0, 1]


def test_cells_too_small_for_numbers_have_none() -> None:
    names = [f"layer.{k}" for k in range(20)]
    rows = [(row, column, 0.5) for row in names for column in names]
    chart, cells = drawn(pl.DataFrame(rows, schema=["row", "column", "value"], orient="row"))
    assert cells.height == 400
    assert len(chart["layer"]) == 1
    assert ">0.50<" not in scene(chart)


def test_a_cell_without_a_value_stays_empty() -> None:
    data = frame().with_columns(value=pl.when(pl.col("row") != pl.col("column")).then("value"))
    chart, cells = drawn(data)
    assert cells.height == 6
    assert chart["layer"][0]["encoding"]["x"]["sort"] == NAMES


def test_the_chart_says_what_it_shows_in_which_unit() -> None:
    chart, _ = drawn(frame(), subtitle="three runs")
    assert chart["title"] == {"text": "Layers", "subtitle": "three runs"}
    axes = {axis["title"] for axis in vl_convert.vegalite_to_vega(chart)["axes"] if "title" in axis}
    assert axes == {"layer (site)"}


def test_a_frame_without_cells_gives_an_empty_chart() -> None:
    scene(heatmap(frame().clear(), title="Layers", axis="layer (site)", value="CKA (1 = alike)").to_dict())
