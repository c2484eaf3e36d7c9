from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from lamina.plot import curves

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")


def dataset(chart: Any) -> pl.DataFrame:
    (rows,) = chart.to_dict()["datasets"].values()
    return pl.DataFrame(rows)


def test_mean_and_range_over_runs() -> None:
    frame = pl.DataFrame(
        {"run": ["a", "b", "c"] * 2, "step": [0] * 3 + [4] * 3, "value": [1.0, 2.0, 6.0, 1.0, 1.0, 4.0]}
    )
    data = dataset(curves(frame, title="Loss", y="loss (nats)"))
    assert data.select("step", "mean", "low", "high", "runs").rows() == [(0, 3.0, 1.0, 6.0, 3), (4, 2.0, 1.0, 4.0, 3)]


def test_values_that_are_not_finite_are_left_out() -> None:
    frame = pl.DataFrame({"run": "a", "step": [0, 1, 2], "value": [1.0, math.nan, math.inf]})
    assert dataset(curves(frame, title="Loss", y="loss"))["mean"].to_list() == [1.0]


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show() -> None:
    frame = pl.DataFrame({"run": "a", "step": [0, 1, 2], "value": [0.0, -1.0, 10.0]})
    assert dataset(curves(frame, title="Change", y="ratio", log=True))["mean"].to_list() == [10.0]


def test_never_more_than_a_few_thousand_points() -> None:
    frame = pl.DataFrame({"site": [f"s{k % 40}" for k in range(40_000)], "step": [k // 40 for k in range(40_000)]})
    frame = frame.with_columns(run=pl.lit("a"), value=pl.lit(1.0))
    assert dataset(curves(frame, title="Norms", y="norm", by="site")).height <= 4000


@pytest.mark.parametrize("by", [None, "site"])
@pytest.mark.parametrize("runs", [["a"], ["a", "b"]])
@pytest.mark.parametrize("log", [False, True])
def test_the_chart_compiles_and_says_what_it_shows(by: str | None, runs: list[str], log: bool) -> None:
    frame = pl.DataFrame({"step": [0, 1, 10, 100] * 2, "site": ["x.0[1].output"] * 4 + ["a:b"] * 4, "value": 2.0})
    frame = pl.concat([frame.with_columns(run=pl.lit(run)) for run in runs])
    spec = curves(frame, title="Norms over training", y="norm (units)", by=by, log=log).to_dict()
    axes = [scale for axis in vl_convert.vegalite_to_vega(spec)["axes"] if (scale := axis.get("title"))]
    assert set(axes) == {"step (optimizer updates, logarithmic)", "norm (units)"}
    assert spec["title"]["text"] == "Norms over training"


def test_a_frame_without_rows_gives_a_chart_without_points() -> None:
    frame = pl.DataFrame(schema={"run": pl.String, "step": pl.Int64, "value": pl.Float64})
    vl_convert.vegalite_to_vega(curves(frame, title="Loss", y="loss").to_dict())
