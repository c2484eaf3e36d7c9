from __future__ import annotations

import itertools
import math

import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError
from lamina.plot import heatmap
from tests.faults import broken
from tests.plot.drawn import data, spec, subtitle, svg, swept

pytest.importorskip("vl_convert", reason="needs lamina[report]")

NAMES = ["zeta", "alpha", "mu"]
VALUES = {("zeta", "alpha"): (0.25, 0.031), ("zeta", "mu"): (0.9, 0.0002), ("alpha", "mu"): (-0.02, math.nan)}


def frame(runs: tuple[str, ...] = ("a",), *, measure: str = "cka") -> pl.DataFrame:
    """Each pair once, as a sweep of a symmetric measure has it; a run's values are 0.01 above the one's before it."""
    return swept(
        [
            ((run, row, 8), (run, column, 8), value + 0.01 * k, error)
            for k, run in enumerate(runs)
            for (row, column), (value, error) in VALUES.items()
        ],
        measure=measure,
    )


def test_cells_carry_the_values_and_errors_of_the_frame_in_both_directions() -> None:
    found = data(heatmap(frame()))
    assert found.height == 6
    for row, column, value, text, spread in found.select("row", "column", "value", "text", "spread").iter_rows():
        expected, error = VALUES.get((row, column)) or VALUES[column, row]
        assert value == expected
        assert text == f"{expected:.2f}"
        assert spread == {0.031: "± 0.03", 0.0002: "± <0.001"}.get(error, "")


def test_directions_that_are_mixed_up_are_noticed() -> None:
    with broken("heatmap_loses_a_direction"), pytest.raises(AssertionError):
        test_cells_carry_the_values_and_errors_of_the_frame_in_both_directions()


@pytest.mark.parametrize("measure", ["linear_regression", "one of my own"])
def test_a_direction_that_was_not_measured_stays_empty_where_the_order_may_matter(measure: str) -> None:
    assert data(heatmap(frame(measure=measure))).height == 3


def test_rows_and_columns_stand_in_order_of_appearance() -> None:
    chart = heatmap(frame())
    for name, field in (("x", "column"), ("y", "row")):
        encoding = spec(chart)["layer"][0]["encoding"][name]
        assert (encoding["field"], encoding["sort"]) == (field, NAMES)
    drawn = svg(chart)
    places = [drawn.index(f">{name}<") for name in NAMES]
    assert places == sorted(places)


def test_every_number_is_written_once_into_its_cell() -> None:
    drawn = svg(heatmap(frame()))
    written = {"0.25": 2, "0.90": 2, "-0.02": 2, "± 0.03": 2, "± &lt;0.001": 2}
    assert {text: drawn.count(f">{text}<") for text in written} == written
    assert not {text for text in ("null", "NaN", "± nan") if f">{text}<" in drawn}


def test_several_runs_are_averaged_with_the_error_over_runs_and_that_is_said() -> None:
    chart = heatmap(frame(("a", "b", "c")))
    cell = data(chart).filter(row="zeta", column="alpha")
    mean = lamina.summarize(frame(("a", "b", "c")).filter(site_b="alpha"))
    assert cell.select("value", "error").row(0) == pytest.approx(mean.select("value", "stderr").row(0))
    assert "mean of 3 runs ± its standard error over runs" in subtitle(chart)
    assert "step 8" in subtitle(chart)


def test_pairs_of_runs_are_averaged_without_an_error() -> None:
    pairs = list(itertools.combinations("abc", 2))
    rows = [((a, x, 0), (b, y, 0), 0.1 * k, 0.1) for k, (a, b) in enumerate(pairs) for x in NAMES for y in NAMES]
    chart = heatmap(swept(rows))
    found = data(chart)
    assert found.height == 9
    assert found["value"].to_list() == pytest.approx([0.1] * 9)
    assert found["error"].null_count() == 9
    assert "mean of 3 pairs of runs" in subtitle(chart)


def test_each_step_has_a_picture_and_too_many_are_refused() -> None:
    rows = [(("a", x, step), ("a", y, step), 0.5, 0.1) for step in (4, 0) for x, y in VALUES]
    chart = heatmap(swept(rows))
    assert [each["title"]["text"] for each in spec(chart)["concat"]] == ["step 4", "step 0"]
    many = swept([(("a", x, step), ("a", y, step), 0.5, 0.1) for step in range(7) for x, y in VALUES])
    with pytest.raises(SchemaError, match="7 pictures to draw, and room for 6"):
        heatmap(many)


def test_steps_of_one_site_make_a_matrix_of_steps() -> None:
    rows = [(("a", "mlp", x), ("a", "mlp", y), 0.5, 0.1) for x, y in itertools.combinations((100, 20, 3), 2)]
    encoding = spec(heatmap(swept(rows)))["layer"][0]["encoding"]
    assert encoding["x"]["sort"] == encoding["y"]["sort"] == ["3", "20", "100"]
    assert encoding["x"]["title"] == "step (optimizer updates)"


def test_a_measure_of_one_side_is_drawn_by_site_and_step() -> None:
    rows = [(("a", site, step), None, 3.0 + step, 0.1) for site in ("mlp", "head") for step in (0, 8)]
    chart = heatmap(swept(rows, measure="twonn", unit="dimensions"))
    found = data(chart)
    assert found.select("row", "column", "value").row(1) == ("mlp", "8", 11.0)
    color = spec(chart)["layer"][0]["encoding"]["color"]
    assert color["scale"]["domain"] == [3.0, 11.0]
    assert color["title"] == ["twonn", "(dimensions)"]


def test_colors_of_a_similarity_are_those_of_a_scale_from_0_to_1_whatever_the_values() -> None:
    color = spec(heatmap(frame()))["layer"][0]["encoding"]["color"]
    assert color["scale"]["domain"] == [0, 1]
    assert color["title"] == ["cka", "(1 = alike)"]


def test_cells_too_small_for_numbers_have_none() -> None:
    names = [f"layer.{k}" for k in range(20)]
    chart = heatmap(swept([(("a", x, 0), ("a", y, 0), 0.5, 0.1) for x in names for y in names]))
    assert data(chart).height == 400
    assert len(spec(chart)["layer"]) == 1
    assert ">0.50<" not in svg(chart)


def test_a_matrix_may_have_more_cells_than_altair_takes_by_itself() -> None:
    names = [f"layer.{k}" for k in range(80)]
    chart = heatmap(swept([(("a", x, 0), ("a", y, 0), 0.5, 0.1) for x in names for y in names]))
    assert data(chart).height == 6400


def test_a_cell_without_a_value_stays_empty_and_is_counted() -> None:
    chart = heatmap(frame().with_columns(value=pl.when(pl.col("site_b") != "mu").then("value")))
    assert data(chart).height == 2
    assert spec(chart)["layer"][0]["encoding"]["x"]["sort"] == NAMES
    assert "2 without a value left out" in subtitle(chart)


def test_a_frame_without_cells_gives_an_empty_chart() -> None:
    svg(heatmap(frame().clear()))


def test_several_values_of_a_cell_are_refused() -> None:
    with pytest.raises(SchemaError, match="several values"):
        heatmap(pl.concat([frame(), frame()]))


def test_a_measure_of_one_side_is_drawn_by_site_and_any_column() -> None:
    heads = pl.DataFrame({"site": ["a", "a", "b", "b"], "head": ["0", "1"] * 2, "value": [0.1, 0.2, 0.3, 0.4]})
    chart = heatmap(heads, columns="head")
    assert data(chart).select("row", "column", "value").rows() == [
        ("a", "0", 0.1), ("a", "1", 0.2), ("b", "0", 0.3), ("b", "1", 0.4)
    ]  # fmt: skip
    assert spec(chart)["layer"][0]["encoding"]["x"]["title"] == "head (number)"
    panels = pl.concat([heads.with_columns(target=pl.lit(name)) for name in ("before", "behind")])
    assert ">target before<" in svg(heatmap(panels, columns="head"))
    for wrong, given in (("no column 'tail'", heads), ("compares", frame())):
        with pytest.raises(SchemaError, match=wrong):
            heatmap(given, columns="tail")
