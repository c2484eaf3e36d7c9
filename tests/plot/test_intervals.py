from __future__ import annotations

import math

import polars as pl
import pytest

import lamina
from lamina.plot import intervals
from tests.plot.drawn import data, spec, subtitle, svg, swept

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")

PAIRS = (("0", "1"), ("0", "2"))
VALUES = [("z", 0, 0.5, 0.1), ("z", 1, 0.6, 0.1), ("a", 0, 0.7, 0.1), ("a", 1, math.nan, 0.1), ("m", 0, 0.8, math.nan)]


def frame() -> pl.DataFrame:
    """Sites of pairs of runs; one value and one error are unknown."""
    rows = [((PAIRS[k][0], site, 0), (PAIRS[k][1], site, 0), value, error) for site, k, value, error in VALUES]
    return swept(rows)


def test_points_and_bars_are_those_of_the_frame() -> None:
    rows = data(intervals(frame()))
    kept = [(site, f"0, {k + 1}", value) for site, k, value, _ in VALUES if not math.isnan(value)]
    assert rows.select("name", "series", "value").rows() == kept
    reach = 2.093024 * 0.1  # Student's t of 19 degrees of freedom
    bars = rows.filter(pl.col("low").is_not_null()).select("low", "high").rows()
    assert bars == [pytest.approx((value - reach, value + reach), abs=1e-6) for value in (0.5, 0.6, 0.7)]


def test_an_interval_that_is_unknown_leaves_its_point_alone() -> None:
    drawn = svg(intervals(frame()))
    assert drawn.count('aria-roledescription="point"') == 4
    assert drawn.count('aria-roledescription="rule mark"') + drawn.count('aria-roledescription="rule"') == 3


def test_sites_stand_in_order_of_appearance() -> None:
    assert spec(intervals(frame()))["layer"][0]["encoding"]["y"]["sort"] == ["z", "a", "m"]


def test_several_runs_are_averaged_and_that_is_said() -> None:
    rows = [((run, site, 0), None, value, 0.01) for run, value in (("a", 0.2), ("b", 0.6)) for site in ("z", "a")]
    chart = intervals(swept(rows))
    mean = lamina.summarize(swept(rows)).filter(site_a="z")
    assert data(chart).select("value", "low", "high").row(0) == pytest.approx(
        mean.select("value", "low", "high").row(0)
    )
    assert "mean of 2 runs; bars: 95 % interval of that mean over runs" in subtitle(chart)


def test_the_parts_of_one_estimate_stand_under_each_other() -> None:
    estimate = lamina.measures.Estimate(
        "collapse", [0.1, 0.2], [0.01, 0.01], n_groups=9, axes={"metric": ("nc1", "nc2")}
    )
    chart = intervals(estimate.to_frame())
    assert data(chart)["name"].to_list() == ["nc1", "nc2"]
    assert spec(chart)["title"]["text"] == "collapse by part"


@pytest.mark.parametrize(("pairs", "colored"), [(1, False), (7, True), (8, False)])
def test_few_series_have_a_color_each(pairs: int, colored: bool) -> None:
    rows = [(("r", site, 0), (str(k), site, 0), 0.5, 0.1) for k in range(pairs) for site in ("a", "b")]
    encoding = spec(intervals(swept(rows)))["layer"][0]["encoding"]
    assert ("field" in encoding["color"]) == colored
    assert ("yOffset" in encoding) == (pairs > 1)


def test_the_chart_says_what_it_shows_in_which_unit() -> None:
    chart = spec(intervals(frame(), title="Layers", x="CKA (1 = alike)"))
    axes = {axis["title"] for axis in vl_convert.vegalite_to_vega(chart)["axes"] if "title" in axis}
    assert axes == {"CKA (1 = alike)", "layer (site)"}
    assert chart["title"]["text"] == "Layers"


def test_a_frame_without_rows_gives_a_chart_without_points() -> None:
    spec(intervals(frame().clear()))
