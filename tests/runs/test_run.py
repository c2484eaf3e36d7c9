"""Opening, describing and asking runs."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import lamina
from lamina.errors import NotARunError, NotFoundError, SchemaError, StorageError


def fill(run: lamina.Run, steps: range = range(3), site: str = "a.0.output") -> lamina.Run:
    with run.writer() as writer:
        for step in steps:
            writer.append({site: np.full((4, 2), step, np.float32)}, step=step, example=[0, 1, 2, 3], source="train")
    return run.refresh()


def test_a_run_says_what_it_is(run: lamina.Run) -> None:
    assert (run.name, run.config, run.status.state) == ("run", {"lr": 1e-3}, "empty")
    assert len(run.id) == 32
    assert run.steps() == []
    assert run.sites().is_empty()
    writer = run.writer()
    writer.flush()
    assert run.refresh().status.state == "running"
    writer.close()
    assert str(run.refresh().status) == "finished"
    assert fill(run).steps() == [0, 1, 2]
    assert run.sites().row(0) == ("a.0.output", "output", "f32", [2], 12, 3, 96, 0)
    assert "finished" in repr(run)


def test_the_config_comes_back_as_it_was_given(tmp_path: Path) -> None:
    config = {"nested": {"é": [1, 2.5, None, True, "text"]}, "small": 1e-300, "large": 2**70}
    assert lamina.Run.create(tmp_path / "above" / "run", config=config).config == config


@pytest.mark.parametrize("config", [{"f": float("nan")}, {"o": object()}, {"list": [{1: 2}]}, [1]])
def test_a_config_that_json_cannot_hold_is_named(tmp_path: Path, config: Any) -> None:
    with pytest.raises(SchemaError, match="config"):
        lamina.Run.create(tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()


def test_of_many_that_create_a_run_one_does_and_the_others_leave_nothing(tmp_path: Path) -> None:
    def create(_: int) -> bool:
        try:
            lamina.Run.create(tmp_path / "run")
        except (NotARunError, StorageError):
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_paths_that_are_no_run(run: lamina.Run, tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="already exists"):
        lamina.Run.create(run.path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotARunError, match="not a run"):
        lamina.open(tmp_path / "folder")
    (tmp_path / "file").write_text("hello")
    with pytest.raises(NotARunError):
        lamina.open(tmp_path / "file")
    with pytest.raises(NotARunError, match="nothing at"):
        lamina.open(tmp_path / "nowhere")


def test_a_path_where_there_is_no_run_is_answered_with_the_nearest(tmp_path: Path) -> None:
    for seed in range(2):
        lamina.Run.create(tmp_path / "runs" / f"digits-{seed}")
    for path, hint in {
        "runs/digit-1": "nearest: digits-1, digits-0",
        "runs": "it holds runs, such as digits-0: lamina.open_runs() opens them all",
        "digits-0": "check the path; lamina.Run.create() makes a run",
    }.items():
        with pytest.raises(NotARunError) as error:
            lamina.open(tmp_path / path)
        assert error.value.hint == hint


def test_names_and_steps_that_are_not_there_list_the_nearest(run: lamina.Run) -> None:
    fill(run)
    with pytest.raises(NotFoundError, match=r"a\.0\.outptu.*a\.0\.output"):
        run.activations("a.0.outptu")
    with pytest.raises(NotFoundError, match=r"step 7.*nearest.*2"):
        run.activations(step=7)
    with pytest.raises(NotFoundError, match=r"step 7"):
        run.rows("a.0.output", step=7)
    with pytest.raises(NotFoundError):
        run.rows("a.*.output")


def test_metrics_keep_duplicates_and_their_site_and_source(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.log({"loss": 1, "accuracy": np.float32(0.5)}, step=0, source="validation")
        writer.log({"loss": float("nan")}, step=0)
        writer.log({"norm": 3.0}, step=1, site="a.output")
        with pytest.raises(SchemaError, match=r"'bad' has 2 values|'bad' is a ndarray"):
            writer.log({"bad": np.ones(2)}, step=1)
    found = run.refresh().metrics().select("step", "name", "site", "source", "rank").collect()
    assert found.rows() == [
        (0, "loss", None, "validation", None),
        (0, "accuracy", None, "validation", None),
        (0, "loss", None, None, None),
        (1, "norm", "a.output", None, None),
    ]
    assert run.metrics().collect()["value"].fill_nan(-1).to_list() == [1, 0.5, -1, 3]
    assert run.metrics().collect_schema()["time"] == pl.Datetime("us", "UTC")


def test_metrics_of_several_sites_are_vectors(run: lamina.Run) -> None:
    with run.writer() as writer:
        vector = np.array([1.0, 2.0], np.float32)
        writer.log({"norm": vector, "count": [3, 4]}, step=0, site=["a", "b"], source="train")
        vector[:] = 0
        writer.log({"norm": torch.tensor([5, 6])}, step=1, site=("a", "b"))
        writer.log({"norm": []}, step=2, site=[])
        for wrong in (1.0, np.ones(3), np.ones((2, 1)), torch.ones(2, dtype=torch.complex64), "ab"):
            with pytest.raises(SchemaError, match="'norm' is no vector of 2 real numbers"):
                writer.log({"norm": wrong}, step=3, site=["a", "b"])
    found = run.refresh().metrics().sort("step", "name", "site").select("step", "name", "site", "source", "value")
    assert found.collect().rows() == [
        (0, "count", "a", "train", 3),
        (0, "count", "b", "train", 4),
        (0, "norm", "a", "train", 1),
        (0, "norm", "b", "train", 2),
        (1, "norm", "a", None, 5),
        (1, "norm", "b", None, 6),
    ]


def test_examples_are_replaced_column_by_column(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.examples({"example": [0, 1, 2], "label": ["a", "b", None]})
        writer.examples({"example": [1, 2, 3], "label": ["B", "C", "D"]})
        writer.examples({"example": [0, 3], "score": [0.5, None]})
        with pytest.raises(SchemaError, match="`example`"):
            writer.examples({"label": ["x"]})
    assert run.refresh().examples().sort("example").collect().rows() == [
        (0, "a", 0.5),
        (1, "B", None),
        (2, "C", None),
        (3, "D", None),
    ]


def test_examples_keyed_by_position_too(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.examples(pl.DataFrame({"example": ["d", "d"], "position": [0, 1], "token": ["x", "y"]}))
        writer.examples(pl.DataFrame({"example": ["d"], "position": [1], "token": ["z"]}))
    assert run.refresh().examples().collect().rows() == [("d", 0, "x"), ("d", 1, "z")]


def test_a_run_pickles_by_its_path(run: lamina.Run) -> None:
    fill(run)
    assert pickle.loads(pickle.dumps(run)).steps() == [0, 1, 2]


def test_a_snapshot_does_not_see_what_is_written_later(run: lamina.Run) -> None:
    fill(run)
    frame = run.activations()
    fill(lamina.open(run.path), range(5, 6))
    assert frame.collect().height == 12
    assert run.refresh().activations().collect().height == 16


def test_runs_answer_together(tmp_path: Path) -> None:
    for seed in range(2):
        run = lamina.Run.create(tmp_path / f"seed-{seed}", config={"seed": seed, "opt": {"lr": 0.1}})
        fill(run, range(seed + 1))
        with run.writer() as writer:
            writer.log({"loss": seed}, step=0)
    (tmp_path / "notes").mkdir()
    for asked in (tmp_path, str(tmp_path / "*"), [tmp_path / "seed-0", lamina.open(tmp_path / "seed-1")]):
        assert [run.name for run in lamina.open_runs(asked)] == ["seed-0", "seed-1"]
    runs = lamina.open_runs(tmp_path)
    assert runs.configs().rows() == [("seed-0", 0, 0.1), ("seed-1", 1, 0.1)]
    assert runs.activations(step=0).collect()["run"].to_list() == ["seed-0"] * 4 + ["seed-1"] * 4
    assert runs.activations(step=1).collect()["run"].unique().to_list() == ["seed-1"]
    assert runs.metrics().select("run", "value").collect().rows() == [("seed-0", 0), ("seed-1", 1)]
    assert runs.sites()["rows"].to_list() == [4, 8]
    assert runs.steps() == [0, 1]
    assert runs["seed-1"].config["seed"] == 1
    with pytest.raises(NotFoundError, match="seed-7"):
        runs["seed-7"]
    with pytest.raises(NotFoundError, match="step 9"):
        runs.activations(step=9)
    with pytest.raises(NotFoundError, match="no run found"):
        lamina.open_runs(tmp_path / "nothing-*")


def test_importing_lamina_does_not_import_torch() -> None:
    code = "import sys, lamina; assert 'torch' not in sys.modules; lamina.record; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_runs_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    paths = [tmp_path / above / "demo" / "seed-0" for above in ("a", "b")]
    runs = lamina.open_runs([lamina.Run.create(path) for path in paths])
    assert [name for name, _ in runs.items()] == ["a/demo/seed-0", "b/demo/seed-0"]
    assert len(lamina.open_runs([paths[0], paths[0]])) == 1, "one run named twice is one run"


def test_a_run_at_work_does_not_speak_of_what_failed_before(run: lamina.Run) -> None:
    run.writer().close(ValueError("first"))
    with run.writer() as writer:
        writer.log({"loss": 1.0}, step=0)
        assert str(run.refresh().status) == "running (1 of 2 writers)"
    assert str(run.refresh().status) == "failed (ValueError('first'); 1 of 2 writers)"
