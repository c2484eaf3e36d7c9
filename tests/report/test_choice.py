from __future__ import annotations

from pathlib import Path

import numpy as np

import lamina
from lamina.report.choice import names_of, rows_at, source_of, steps_of, vector_sites


def write(path: Path, rows: int = 1000) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        for step in (4, 0):
            vectors = np.repeat(np.arange(rows, dtype=np.float32)[:, None], 4, axis=1)
            writer.append({"a.output": vectors}, step=step, example=np.arange(rows), source="validation")
        writer.append({"a.output": np.ones((3, 4), np.float32), "count": np.arange(3)}, step=8, source="train")
        writer.append({"tokens": np.ones((3, 4), np.int64)}, step=8)
    return lamina.open(path)


def test_a_probe_comes_before_the_training_rows(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    assert source_of(run, "a.output") == "validation"
    assert source_of(run, "count") == "train"
    assert source_of(run, "tokens") is None


def test_steps_are_those_of_the_source(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    assert steps_of(run, "a.output", "validation") == [0, 4]
    assert steps_of(run, "a.output", None) == [0, 4, 8]


def test_rows_are_spread_over_all_of_a_step_and_only_they_are_read(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    frame = rows_at(run, "a.output", 4, "validation", limit=10, keys=("example", "position"))
    assert frame.columns == ["example", "a.output"]
    assert frame["example"].to_list() == list(range(0, 1000, 100))
    assert [vector[0] for vector in frame["a.output"].to_list()] == list(range(0, 1000, 100))


def test_few_rows_are_all_taken(tmp_path: Path) -> None:
    assert rows_at(write(tmp_path / "run", rows=5), "a.output", 0, "validation", limit=10).height == 5


def test_vector_sites_are_those_of_floating_point_vectors(tmp_path: Path) -> None:
    assert vector_sites(write(tmp_path / "run"))["site"].to_list() == ["a.output"]


def test_runs_of_one_name_go_by_their_paths(tmp_path: Path) -> None:
    runs = [lamina.Run.create(tmp_path / folder / "run") for folder in ("a", "b")]
    assert names_of(runs) == [str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")]
    assert names_of(runs[:1]) == ["run"]
