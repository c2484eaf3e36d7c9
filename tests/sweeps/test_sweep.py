"""The frame of a sweep holds what the measure says of each subject, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina import geometry, similarity, sweeps
from lamina.errors import NotFoundError, SchemaError
from tests.faults import broken
from tests.sweeps.conftest import EXAMPLES, SITES, STEPS, make, vectors
from tests.sweeps.counting import by_label, mean_of, product_of

COLUMNS = ["run_a", "site_a", "step_a", "run_b", "site_b", "step_b", "measure", "options", "part", "estimator", "value"]
COLUMNS += ["unit", "stderr", "n", "n_groups", "dropped", "seed"]


def check_frame(run: lamina.Run) -> None:
    frame = lamina.sweep(mean_of, run)
    assert frame.columns == COLUMNS
    assert frame.select("run_a", "site_a", "step_a").rows() == [("seed-0", s, t) for s in SITES for t in STEPS]
    assert frame.select("run_b", "site_b", "step_b").null_count().row(0) == (6, 6, 6)
    truth = [float(vectors(site, step).double().mean()) for site in SITES for step in STEPS]
    np.testing.assert_allclose(frame["value"], truth, rtol=1e-12)
    assert frame["n"].to_list() == [EXAMPLES] * 6


def test_the_frame_has_the_columns_of_the_design(run: lamina.Run) -> None:
    check_frame(run)


def test_rows_of_other_steps_are_noticed(run: lamina.Run) -> None:
    with broken("sweeps_take_rows_of_all_steps"), pytest.raises(AssertionError):
        check_frame(run)


def test_pairs_have_what_the_measure_gives_for_them(run: lamina.Run) -> None:
    frame = lamina.sweep(similarity.cka, run, options={"groups": "topic"})
    assert frame.height == 6  # three pairs at two steps
    for row in frame.iter_rows(named=True):
        x, y = (run.rows(row[f"site_{side}"], step=row[f"step_{side}"]) for side in "ab")
        expected = similarity.cka(x, y, groups="topic")
        assert (row["value"], row["stderr"]) == (pytest.approx(expected.value), pytest.approx(expected.stderr))
        assert row["n_groups"] == 8
        assert '"groups": "topic"' in row["options"]
        assert row["step_a"] == row["step_b"]


def test_a_measure_that_is_not_symmetric_is_asked_in_both_directions(run: lamina.Run) -> None:
    frame = lamina.sweep(product_of, run, steps=10)
    assert frame.height == 6
    a, b = (float(vectors(site, 10).double().mean()) for site in SITES[:2])
    pair = frame.filter(site_a=SITES[1], site_b=SITES[0])
    assert pair["value"].item() == pytest.approx(b + 2 * a)


def test_numbers_of_an_array_have_rows_of_their_own(run: lamina.Run) -> None:
    frame = lamina.sweep(by_label, run, sites="embed.output", steps=0, labels="topic")
    assert frame["part"].to_list() == [str(topic) for topic in range(8)]
    truth = [float(vectors("embed.output", 0).double()[topic::8].mean()) for topic in range(8)]
    np.testing.assert_allclose(frame["value"], truth, rtol=1e-12)
    assert frame["stderr"].null_count() == 8  # NaN is null in a frame


def test_labels_of_the_examples_reach_the_measure(run: lamina.Run) -> None:
    frame = lamina.sweep(geometry.neural_collapse, run, sites="embed.output", labels="topic")
    expected = geometry.neural_collapse(run.rows("embed.output", step=0), "topic")
    assert frame.filter(step_a=0, part="nc1")["value"].item() == expected.at(metric="nc1").value


def test_where_chooses_rows(run: lamina.Run) -> None:
    frame = lamina.sweep(mean_of, run, sites="embed.output", where=pl.col("example") < 10)
    assert frame["n"].to_list() == [10, 10]
    assert frame["value"][0] == pytest.approx(float(vectors("embed.output", 0)[:10].double().mean()))


def test_where_that_compares_rows_looks_at_one_step_at_a_time(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(10, 4)}, step=20, example=range(1000, 1010))
    frame = lamina.sweep(mean_of, run.refresh(), sites=SITES[0], where=pl.col("example") > pl.col("example").mean())
    assert frame["n"].to_list() == [20, 20, 5]


def test_several_sources_need_a_choice(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(10, 4)}, step=10, example=range(10), source="train")
    run.refresh()
    with pytest.raises(SchemaError, match=r"at step 10 come from several sources: train, validation.*source="):
        lamina.sweep(mean_of, run, sites=SITES[0])
    assert lamina.sweep(mean_of, run, sites=SITES[0], source="train")["n"].to_list() == [10]
    assert lamina.sweep(mean_of, run, sites=SITES[0], steps=0)["n"].to_list() == [EXAMPLES]
    with pytest.raises(NotFoundError, match="of the source 'test'"):
        lamina.sweep(mean_of, run, source="test")


def test_runs_are_told_apart_and_compared(tmp_path: Path) -> None:
    for seed in range(3):
        make(tmp_path / f"seed-{seed}", seed)
    frame = lamina.sweep(product_of, tmp_path / "seed-*", steps=10, pairs="same-site-across-runs")
    assert frame.height == 3 * 6
    assert frame.filter(run_a="seed-0", run_b="seed-2")["site_a"].to_list() == SITES
    assert (frame["site_a"] == frame["site_b"]).all()
    mean = lamina.summarize(lamina.sweep(mean_of, lamina.open_runs(tmp_path)), over="run")
    assert mean["count"].to_list() == [3] * 6


def test_tensors_of_checkpoints_are_rows_of_units(run: lamina.Run) -> None:
    weights = {step: torch.randn(5, 3, generator=torch.Generator().manual_seed(step)) for step in (0, 7)}
    with run.writer() as writer:
        for step, weight in weights.items():
            writer.save({"model": {"head": {"weight": weight}, "scale": torch.tensor(1.0)}}, step=step)
    frame = lamina.sweep(mean_of, run.refresh(), sites="head.*")
    assert frame.select("site_a", "step_a", "n").rows() == [("head.weight", 0, 5), ("head.weight", 7, 5)]
    assert frame["value"].to_list() == [pytest.approx(float(weight.double().mean())) for weight in weights.values()]


def weight_norm(model: torch.nn.Module, *, factor: float = 1.0) -> Any:
    from lamina.measures import Estimate

    total = sum(float(each.detach().double().square().sum()) for each in model.parameters())
    return Estimate("weight_norm", factor * total, 0.0, n=1, estimator="sum")


def distance(a: torch.nn.Module, b: torch.nn.Module) -> Any:
    from lamina.measures import Estimate

    pairs = zip(a.parameters(), b.parameters(), strict=True)
    total = sum(float((one - other).detach().double().square().sum()) for one, other in pairs)
    return Estimate("distance", total, 0.0, n=1, estimator="sum")


def test_models_are_made_and_get_the_weights_of_each_step(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step in (0, 5, 9):
            weight = torch.full((2, 3), float(step))
            writer.save({"model": {"weight": weight, "bias": torch.zeros(2)}}, step=step)
    run.refresh()

    def linear(run: lamina.Run) -> torch.nn.Module:
        assert run.config == {"seed": 0}
        return torch.nn.Linear(3, 2)

    frame = lamina.sweep(weight_norm, run, model=linear, steps=slice(1, None))
    assert frame.select("site_a", "step_a", "value").rows() == [(None, 5, 150.0), (None, 9, 486.0)]
    pairs = lamina.sweep(distance, run, model=linear)
    assert pairs.filter(step_a=0, step_b=9)["value"].item() == 486.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lamina.Run, "load", None)
        assert lamina.sweep(weight_norm, run, model=linear, cache=False).height == 3, "weights are read once"
    with pytest.raises(SchemaError, match="sites= for models"):
        lamina.sweep(weight_norm, run, model=linear, sites="*")


def test_estimates_subtract(run: lamina.Run) -> None:
    found = sweeps.estimates(similarity.cka, run, steps=10)
    again = sweeps.estimates(similarity.cka, run, steps=10)
    first, second = (each.estimate for each in found[:2])
    assert first
    assert second
    assert (first - second).stderr > 0
    assert [each.estimate for each in again] == [each.estimate for each in found]
    assert str(found[0].a) == "embed.output of seed-0 at step 10"


def test_a_cell_that_fails_is_named(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(10, 4), SITES[1]: torch.randn(10, 4)}, step=20, example=range(10))
    run.refresh()
    with pytest.raises(SchemaError, match=r"^embed.output of seed-0 at step 20 and .*does not vary"):
        lamina.sweep(similarity.cka, run)
    with pytest.warns(lamina.LaminaWarning, match="1 of 7 cells of similarity.cka have no value; the first: embed"):
        frame = lamina.sweep(similarity.cka, run, errors="null")
    assert frame.filter(step_a=20)["value"].to_list() == [None]
    assert frame["value"].null_count() == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sites": "block.*"}, "no site matches 'block.*'.*blocks.0.output"),
        ({"steps": 3}, "nothing at step 3"),
        ({"steps": [0, 3]}, "nothing at step 3"),
        ({"where": pl.col("example") < 0}, "no rows"),
        ({"where": pl.col("exampel") < 0}, "no column 'exampel'"),
        ({"where": pl.col("example") + 1}, "where="),
        ({"where": "example < 3"}, "where="),
        ({"labels": "topic"}, "labels= for mean_of"),
        ({"seed": 0}, "seed= for mean_of"),
        ({"pairs": "all"}, "pairs='all' for mean_of"),
        ({"options": {"powers": 2}}, "no option 'powers'.*it has power, groups, weights"),
        ({"options": {"x": 2}}, "no option 'x'"),
        ({"options": {"weights": object()}}, "weights is a builtins.object.*cache=False"),
        ({"cache": 3}, "cache=3"),
        ({"errors": "skip"}, "errors='skip'"),
        ({"model": mean_of}, "takes rows|no checkpoint"),
    ],
)
def test_bad_input(run: lamina.Run, given: dict[str, Any], message: str) -> None:
    with pytest.raises((SchemaError, NotFoundError), match=message):
        lamina.sweep(mean_of, run, **given)


@pytest.mark.parametrize(
    ("measure", "given", "message"),
    [
        (product_of, {"pairs": "same-layer"}, "pairs='same-layer'.*same-step"),
        (product_of, {"sites": SITES[0]}, "leaves none of 2 subjects"),
        (by_label, {}, "by_label needs labels="),
        (by_label, {"labels": "topics"}, "embed.output of seed-0 at step 0: .*topics"),
        (by_label, {"labels": [1, 2]}, "labels has 2 labels"),
        (lambda: 3, {}, "0 arguments"),
        (lambda x: 3.0, {}, "returns a float"),
        ("similarity.cka", {}, "the measure is 'similarity.cka'"),
    ],
)
def test_measures_that_do_not_fit(run: lamina.Run, measure: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises((SchemaError, NotFoundError), match=message):
        lamina.sweep(measure, run, **given)


def test_an_error_that_is_not_ours_says_where_it_was(run: lamina.Run) -> None:
    def broken(x: lamina.Rows) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        lamina.sweep(broken, run)
    assert caught.value.__notes__ == ["measured was embed.output of seed-0 at step 0"]


def test_different_numbers_of_rows_name_both_and_the_pairing(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.append({SITES[0]: torch.randn(30, 4)}, step=20, example=range(EXAMPLES - 10, EXAMPLES + 20))
    frame = lamina.sweep(similarity.cka, run.refresh(), sites=SITES[0], pairs="same-site", steps=[10, 20])
    assert frame.select("n", "dropped").row(0) == (10, '{"unpaired_x": 30, "unpaired_y": 20}')
    with pytest.raises(SchemaError, match="x has 40 rows and y has 30"):
        lamina.sweep(similarity.cka, run, sites=SITES[0], pairs="same-site", steps=[10, 20], options={"pair": "order"})
