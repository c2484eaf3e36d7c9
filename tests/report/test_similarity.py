from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.report import similarity
from lamina.report.section import Picture
from lamina.report.similarity import similarity_section
from tests.faults import broken
from tests.report.planted import STEPS, training

LAYERS = ["a.output", "b.output", "c.output"]


def pictures(runs: list[lamina.Run]) -> dict[str, Picture]:
    """The pictures of the section, by the first words of their titles that tell them apart."""
    section = similarity_section(runs)
    if section is None:
        return {}
    titles = ("each other", "its own end", "in two runs")
    found = {}
    for picture in section.parts:
        assert isinstance(picture, Picture)
        (name,) = (name for name in titles if name in title(picture))
        found[name] = picture
    return found


def title(picture: Picture, part: str = "text") -> str:
    text = picture.chart.to_dict()["title"][part]
    return text if isinstance(text, str) else " ".join(text)


def data(picture: Picture) -> pl.DataFrame:
    chart: dict[str, Any] = picture.chart.to_dict()
    return max((pl.DataFrame(rows) for rows in chart["datasets"].values()), key=len)


def cell(frame: pl.DataFrame, row: str, column: str) -> float:
    return frame.filter(pl.col("row") == row, pl.col("column") == column)["value"].item()


def test_layers_that_are_equal_up_to_a_turn_are_alike_and_others_are_not(tmp_path: Path) -> None:
    runs = [training(tmp_path / f"seed-{seed}", seed=seed) for seed in range(3)]
    picture = pictures(runs)["each other"]
    frame = data(picture)
    assert frame["row"].unique(maintain_order=True).to_list() == LAYERS
    assert cell(frame, "a.output", "b.output") == cell(frame, "b.output", "a.output") == pytest.approx(1, abs=1e-4)
    assert abs(cell(frame, "a.output", "c.output")) < 0.1
    assert "mean of 3 runs" in picture.reading
    assert f"step {STEPS[-1]}" in title(picture)


def test_each_layer_approaches_its_own_end(tmp_path: Path) -> None:
    frame = data(pictures([training(tmp_path / "seed-0", seed=0)])["its own end"])
    for site, expected in (("a.output", [1, 1, 1, 1]), ("c.output", [1, 1, 1, 1])):
        values = frame.filter(series=site).sort("step")["value"].to_list()
        assert values == pytest.approx(expected, abs=1e-4)
    mixed = frame.filter(series="b.output").sort("step")
    assert mixed["step"].to_list() == list(STEPS)
    values = mixed["value"].to_list()
    assert values == sorted(values)
    assert values[0] < 0.6
    assert values[-2] < 0.9
    assert values[-1] == 1


def test_the_same_layer_is_compared_across_all_pairs_of_runs(tmp_path: Path) -> None:
    runs = [training(tmp_path / f"seed-{seed}", seed=seed) for seed in range(3)]
    frame = data(pictures(runs)["in two runs"])
    pairs = ["seed-0, seed-1", "seed-0, seed-2", "seed-1, seed-2"]
    assert frame.group_by("name", maintain_order=True).agg("series").rows() == [(site, pairs) for site in LAYERS]
    assert frame.filter(name="a.output")["value"].to_list() == pytest.approx([1, 1, 1], abs=1e-4)
    alone = frame.filter(name="c.output")
    assert (alone["value"].abs() < 0.2).all()
    assert ((alone["low"] < alone["value"]) & (alone["value"] < alone["high"])).all()


def test_rows_that_are_paired_by_order_are_noticed(tmp_path: Path) -> None:
    with broken("similarity_pairs_by_order"):
        with pytest.raises(AssertionError):
            test_each_layer_approaches_its_own_end(tmp_path / "end")
        with pytest.raises(AssertionError):
            test_the_same_layer_is_compared_across_all_pairs_of_runs(tmp_path / "runs")


def test_one_run_has_the_error_of_its_examples_and_no_pairs(tmp_path: Path) -> None:
    found = pictures([training(tmp_path / "seed-0", seed=0)])
    assert list(found) == ["each other", "its own end"]
    assert "standard error, by example" in found["each other"].reading
    spreads = data(found["each other"])
    assert spreads.filter(pl.col("row") == "a.output", pl.col("column") == "c.output")["error"].item() > 0.01


def test_runs_that_did_not_reach_the_end_are_left_out(tmp_path: Path) -> None:
    runs = [training(tmp_path / "begun", seed=5, steps=STEPS[:2])]
    runs += [training(tmp_path / f"seed-{seed}", seed=seed) for seed in range(2)]
    frame = data(pictures(runs)["in two runs"])
    assert frame["series"].unique().to_list() == ["seed-0, seed-1"]


def test_many_rows_are_sampled_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "_ROWS", 20)
    found = pictures([training(tmp_path / "seed-0", seed=0)])
    for picture in found.values():
        assert "20 of 60 rows of the source validation" in picture.reading
        assert "20 rows in 20 groups" in title(picture, "subtitle")


def test_threads_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []

    def stops(*_: object, **__: object) -> None:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    monkeypatch.setattr(similarity, "compared", stops)
    with pytest.raises(KeyboardInterrupt):
        similarity_section([training(tmp_path / "run", seed=0)])
    assert seen == [1]
    assert torch.get_num_threads() == before


def test_a_run_of_one_step_or_one_layer_has_no_section(tmp_path: Path) -> None:
    assert similarity_section([training(tmp_path / "one", seed=0, steps=(3,))]) is None
    run = lamina.Run.create(tmp_path / "layer")
    with run.writer() as writer:
        for step in (0, 1):
            writer.append(
                {"a.output": np.random.default_rng(step).normal(size=(9, 3))}, step=step, example=np.arange(9)
            )
    assert similarity_section([lamina.open(run.path)]) is None


def test_steps_and_runs_on_other_examples_have_no_value_and_are_counted(tmp_path: Path) -> None:
    runs = []
    for seed in range(2):
        run = lamina.Run.create(tmp_path / f"seed-{seed}")
        with run.writer() as writer:
            for step in (0, 1, 2):
                rows = np.random.default_rng(step).normal(size=(9, 3))
                first = 100 * seed + 10 * (step > 0)
                writer.append({"a.output": rows, "b.output": rows}, step=step, example=np.arange(first, first + 9))
        runs.append(lamina.open(run.path))
    found = pictures(runs)
    assert list(found) == ["each other", "its own end"]
    assert "Left out: 4 comparisons without a value" in found["its own end"].reading
