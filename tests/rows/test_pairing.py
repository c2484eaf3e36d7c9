"""Rows pair by name within a step, by example and position across steps and runs, else by order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import SchemaError
from lamina.rows import Rows
from lamina.rows.pairing import pair_rows
from tests.faults import broken


def make(path: Path, steps: dict[int, dict[str, Any]]) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        for step, columns in steps.items():
            n = len(columns["example"])
            writer.append({"x": torch.arange(n)[:, None].float(), "y": torch.zeros(n, 1)}, step=step, **columns)
    return run.refresh()


def check_across_steps(folder: Path) -> None:
    run = make(folder / "run", {0: {"example": [5, 6, 7]}, 9: {"example": [7, 5, 8]}})
    x, y, dropped = pair_rows(run.rows("x", step=0), run.rows("x", step=9))
    assert (x.tolist(), y.tolist()) == ([0, 2], [1, 0])
    assert dropped == {"unpaired_x": 1, "unpaired_y": 1}


def test_steps_pair_by_example(tmp_path: Path) -> None:
    check_across_steps(tmp_path)


def test_pairing_by_order_is_noticed(tmp_path: Path) -> None:
    with broken("rows_pair_by_order"), pytest.raises(AssertionError):
        check_across_steps(tmp_path)


def test_runs_pair_by_example_and_position(tmp_path: Path) -> None:
    a = make(tmp_path / "a", {0: {"example": [1, 1, 2], "position": [0, 1, 0]}})
    b = make(tmp_path / "b", {0: {"example": [2, 1, 1], "position": [0, 1, 0]}})
    x, y, dropped = pair_rows(a.rows("x"), b.rows("x"))
    assert (x.tolist(), y.tolist(), dropped) == ([0, 1, 2], [2, 1, 0], {})


def test_sites_of_one_step_pair_by_row(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {0: {"example": [1, 1, 1]}})
    x, y, dropped = pair_rows(run.rows("x"), run.rows("y"))
    assert (x.tolist(), y.tolist(), dropped) == ([0, 1, 2], [0, 1, 2], {})


def test_keys_that_occur_twice(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {0: {"example": [1, 1, 2]}, 1: {"example": [1, 2, 3]}})
    with pytest.raises(SchemaError, match="2 rows of x have example 1"):
        pair_rows(run.rows("x", step=0), run.rows("x", step=1))


def test_nothing_in_common(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {0: {"example": [1]}, 1: {"example": [2]}})
    with pytest.raises(SchemaError, match="no row of x has the example of a row of y"):
        pair_rows(run.rows("x", step=0), run.rows("x", step=1))


def test_by_order_when_asked(tmp_path: Path) -> None:
    run = make(tmp_path / "run", {0: {"example": [1]}, 1: {"example": [2]}})
    x, y, _ = pair_rows(run.rows("x", step=0), run.rows("x", step=1), "order")
    assert (x.tolist(), y.tolist()) == ([0], [0])


def test_different_numbers_of_rows() -> None:
    with pytest.raises(SchemaError, match="x has 3 rows and y has 2"):
        pair_rows(Rows.of(np.zeros((3, 1))), Rows.of(np.zeros((2, 1))))


def test_an_unknown_pairing() -> None:
    with pytest.raises(SchemaError, match="pair='row'"):
        pair_rows(Rows.of(np.zeros((3, 1))), Rows.of(np.zeros((3, 1))), "row")
