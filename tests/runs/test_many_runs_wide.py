"""The wide frame over several runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from lamina.cli import query
from lamina.errors import NotFoundError, SchemaError


def record(path: Path, x: np.ndarray, **cells: str) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        writer.append({"x": x}, step=0, **cells)
    return run.refresh()


def test_vectors_of_other_widths_are_refused_by_name(tmp_path: Path) -> None:
    runs = [record(tmp_path / name, np.ones((2, width), np.float32)) for name, width in (("a", 3), ("b", 4))]
    with pytest.raises(SchemaError, match=r"'x' has 3 numbers a row in run 'a' and 4 numbers a row in run 'b'"):
        lamina.open_runs(runs).activations()
    assert query.answer(lamina.open_runs(runs), "select count(*) from sites").item() == 2
    with pytest.raises(SchemaError, match="numbers a row"):
        query.answer(lamina.open_runs(runs), "select row from activations")
    scalar = record(tmp_path / "c", np.ones(2, np.float32))
    with pytest.raises(SchemaError, match="one number a row in run 'c'"):
        lamina.open_runs([runs[0], scalar]).activations("x")


def test_other_dtypes_of_one_width_widen(tmp_path: Path) -> None:
    record(tmp_path / "a", np.full((1, 2), 0.5, np.float16))
    record(tmp_path / "b", np.full((1, 2), 0.25, np.float32))
    frame = lamina.open_runs(f"{tmp_path}/*").activations().collect()
    assert frame.schema["x"] == pl.Array(pl.Float32, 2)
    assert frame["x"].to_list() == [[0.5, 0.5], [0.25, 0.25]]


def test_runs_without_the_source_are_left_out_and_if_all_are_the_sources_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / name, np.ones((1, 2), np.float32), source=f"probe-{name}")
    runs = lamina.open_runs(f"{tmp_path}/*")
    assert runs.activations(source="probe-b").select("run").collect()["run"].to_list() == ["b"]
    with pytest.raises(NotFoundError, match=r"'prob-b'.*probe-b"):
        runs.activations(source="prob-b")
