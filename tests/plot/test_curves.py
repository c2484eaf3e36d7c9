from __future__ import annotations

import math

import polars as pl
import pytest

import lamina
from lamina.errors import SchemaError
from lamina.measures import Estimate, Replicates
from lamina.plot import curves
from tests.faults import broken
from tests.plot.drawn import data, spec, subtitle, swept

vl_convert = pytest.importorskip("vl_convert", reason="needs lamina[report]")

RUNS = ("a", "b", "c")
VALUES = {"a": 0.2, "b": 0.3, "c": 0.7}


def training() -> pl.DataFrame:
    """Two sites of three runs at two steps."""
    return swept(
        [
            ((run, site, step), None, VALUES[run] + add + step, 0.01)
            for run in RUNS
            for site, add in (("mlp", 0.0), ("attention", 1.0))
            for step in (0, 8)
        ]
    )


def test_several_runs_have_the_interval_of_their_mean_over_runs_and_that_is_said() -> None:
    chart = curves(training())
    found = data(chart)
    assert found["series"].unique(maintain_order=True).to_list() == ["mlp", "attention"]
    first = found.filter(series="mlp", step=0)
    mean = lamina.summarize(training().filter(site_a="mlp", step_a=0))
    assert first.select("value", "low", "high").row(0) == pytest.approx(mean.select("value", "low", "high").row(0))
    assert first["value"].item() == pytest.approx(0.4)
    assert first["high"].item() > 1.0  # far beyond each estimate's own error
    assert "mean of 3 runs; band: 95 % interval of that mean over runs (Student's t)" in subtitle(chart)


def test_one_run_has_the_intervals_of_its_estimates_and_that_is_said() -> None:
    keys = tuple(str(k) for k in range(20))
    replicates = Replicates(keys, (1,) * 20, tuple(0.5 + 0.01 * math.sin(k) for k in range(20)))
    estimate = Estimate("cka", 0.5, replicates.stderr(0.5), n=20, n_groups=20, replicates=replicates)
    chart = curves(estimate.to_frame().with_columns(step=3))
    assert data(chart).select("low", "high").row(0) == pytest.approx(estimate.interval())
    assert "band: 95 % interval of each estimate" in subtitle(chart)


def test_bands_of_the_wrong_kind_are_noticed() -> None:
    with broken("runs_have_the_band_of_one"), pytest.raises(AssertionError):
        test_several_runs_have_the_interval_of_their_mean_over_runs_and_that_is_said()


def test_plain_numbers_of_several_runs_have_their_range() -> None:
    frame = pl.DataFrame({"run": list(RUNS) * 2, "step": [0] * 3 + [4] * 3, "value": [1.0, 2.0, 6.0, 1.0, 1.0, 4.0]})
    chart = curves(frame, title="Loss", y="loss (nats)")
    found = data(chart).select("step", "value", "low", "high", "runs").rows()
    assert found == [(0, 3.0, 1.0, 6.0, 3), (4, 2.0, 1.0, 4.0, 3)]
    assert "band: from the lowest run to the highest" in subtitle(chart)


def test_lines_of_runs_are_not_averaged() -> None:
    chart = curves(training().filter(site_a="mlp"), by="run")
    assert data(chart).filter(step=0).select("series", "value").rows() == [*VALUES.items()]
    assert "of each estimate" in subtitle(chart)


def test_a_comparison_with_the_end_says_with_which_step() -> None:
    frame = swept([(("a", "mlp", step), ("a", "mlp", 8), step / 8, 0.01) for step in (0, 4)])
    for turned in (frame, frame.rename({"step_a": "step_b", "step_b": "step_a"})):
        chart = curves(turned)
        assert data(chart).select("step", "value").rows() == [(0, 0.0), (4, 0.5)]
        assert "compared with step 8" in subtitle(chart)


def test_pairs_of_runs_have_a_line_each() -> None:
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    chart = curves(swept([((a, "mlp", 0), (b, "mlp", 0), 0.5, 0.1) for a, b in pairs]))
    assert data(chart)["series"].to_list() == ["a, b", "a, c", "b, c"]
    assert "mean" not in subtitle(chart)


def test_the_chart_says_what_all_values_have_in_common() -> None:
    chart = curves(training().filter(run_a="a"))
    assert spec(chart)["title"]["text"] == "cka over training"
    for part in ("run a", "planted", "100 rows in 20 groups"):
        assert part in subtitle(chart)
    assert "8" not in subtitle(chart)


def test_metrics_of_a_run_are_drawn_as_they_come(tmp_path: object) -> None:
    run = lamina.Run.create(f"{tmp_path}/run")
    with run.writer() as writer:
        for step in range(3):
            writer.log({"train/loss": 1.0 / (step + 1), "validation/loss": 2.0}, step=step)
    found = data(curves(run.refresh().metrics(), title="Loss", y="loss (nats)"))
    assert found.filter(series="train/loss").sort("step")["value"].to_list() == pytest.approx([1, 1 / 2, 1 / 3])


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    frame = pl.DataFrame({"run": "a", "step": [0, 1, 2], "value": [1.0, math.nan, math.inf]})
    chart = curves(frame, title="Loss", y="loss")
    assert data(chart)["value"].to_list() == [1.0]
    assert "2 without a value left out" in subtitle(chart)


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show_and_ends_bands() -> None:
    frame = pl.DataFrame({"run": "a", "step": [0, 1, 2], "value": [0.0, -1.0, 10.0]})
    assert data(curves(frame, title="Change", y="ratio", log=True))["value"].to_list() == [10.0]
    band = pl.DataFrame({"step": [0, 1], "value": [1.0, 2.0], "low": [-1.0, 0.5], "high": [3.0, 4.0]})
    assert data(curves(band, log=True))["low"].to_list() == [0.5, 0.5]


def test_never_more_than_a_few_thousand_points() -> None:
    frame = pl.DataFrame({"site": [f"s{k % 40}" for k in range(40_000)], "step": [k // 40 for k in range(40_000)]})
    frame = frame.with_columns(run=pl.lit("a"), value=pl.lit(1.0))
    assert data(curves(frame, title="Norms", y="norm", by="site")).height <= 4000


def test_estimates_of_many_steps_are_chosen_and_not_averaged() -> None:
    frame = swept([(("a", "mlp", step), None, float(step), 0.1) for step in range(1000)])
    found = data(curves(frame))
    assert found.height <= 250
    assert (found["value"] == found["step"]).all()
    assert {0, 999} <= set(found["step"])


@pytest.mark.parametrize("by", [None, "site"])
@pytest.mark.parametrize("runs", [["a"], ["a", "b"]])
@pytest.mark.parametrize("log", [False, True])
def test_the_chart_compiles_and_says_what_it_shows(by: str | None, runs: list[str], log: bool) -> None:
    frame = pl.DataFrame({"step": [0, 1, 10, 100] * 2, "site": ["x.0[1].output"] * 4 + ["a:b"] * 4, "value": 2.0})
    frame = pl.concat([frame.with_columns(run=pl.lit(run)) for run in runs])
    drawn = spec(curves(frame, title="Norms over training", y="norm (units)", by=by, log=log))
    axes = [scale for axis in vl_convert.vegalite_to_vega(drawn)["axes"] if (scale := axis.get("title"))]
    assert set(axes) == {"step (optimizer updates, logarithmic)", "norm (units)"}
    assert drawn["title"]["text"] == "Norms over training"


def test_a_frame_without_rows_gives_a_chart_without_points() -> None:
    frame = pl.DataFrame(schema={"run": pl.String, "step": pl.Int64, "value": pl.Float64})
    spec(curves(frame, title="Loss", y="loss"))


def test_what_is_no_frame_of_values_is_refused() -> None:
    with pytest.raises(SchemaError, match="frame of Polars, not list"):
        curves([1, 2])  # type: ignore[arg-type]
    with pytest.raises(SchemaError, match="no numbers in a column 'value'"):
        curves(pl.DataFrame({"step": [0]}))
    with pytest.raises(SchemaError, match="no column 'layer'"):
        curves(training(), by="layer")


def test_values_of_several_units_and_several_at_one_place_are_refused() -> None:
    mixed = pl.concat([training(), training().with_columns(unit=pl.lit("nats"), measure=pl.lit("entropy"))])
    with pytest.raises(SchemaError, match="several units: 1, nats"):
        curves(mixed)
    with pytest.raises(SchemaError, match="differs in site too: mlp, attention"):
        curves(training(), by="run")
    with pytest.raises(SchemaError, match="several values at series mlp, step 0, run a"):
        curves(pl.concat([training(), training()]))
