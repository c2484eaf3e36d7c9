"""Cells that are computed by other processes are those that would have been computed here."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import lamina
from lamina import similarity
from lamina.errors import SchemaError
from tests.sweeps.conftest import SITES, make, vectors
from tests.sweeps.test_own_measure import own  # noqa: F401 - a fixture


def test_processes_give_the_same_bits(run: lamina.Run, tmp_path: Path) -> None:
    here = lamina.sweep(similarity.cka, run, cache=False)
    there = lamina.sweep(similarity.cka, run, executor="processes", cache=tmp_path / "kept")
    assert there.equals(here)
    again = lamina.sweep(similarity.cka, run, cache=tmp_path / "kept", executor="processes")
    assert again.equals(here)


def test_a_worker_that_dies_and_a_cell_that_fails_are_named(run: lamina.Run, tmp_path: Path) -> None:
    flag = tmp_path / "dead"

    def dies(x: lamina.Rows) -> Any:
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if float(x.gather([0])[0, 0]) == first:
            raise SchemaError("no")
        return lamina.measures.Estimate("dies", float(len(x)), 0.0, estimator="count")

    first = float(vectors(SITES[0], 0)[0, 0])
    with pytest.warns(lamina.LaminaWarning) as told:
        frame = lamina.sweep(dies, run, executor="processes", cache=False, errors="null")
    assert frame["value"].to_list() == [None] + [40.0] * 5
    said = "\n".join(str(each.message) for each in told)
    assert re.search(r"while it computed .*\.output of seed-0 at step \d+, which is tried again", said)
    assert "1 of 6 cells of dies have no value; the first: embed.output of seed-0 at step 0: no" in said


def test_workers_see_the_rows_that_were_there_when_the_sweep_began(run: lamina.Run) -> None:
    from lamina.sweeps.subjects import subjects

    (before,) = subjects({"run": run}, SITES[0], 0)
    with run.writer() as writer:
        writer.append({SITES[0]: torch.ones(5, 4)}, step=0, example=range(100, 105), source="validation")
    import pickle

    rows = pickle.loads(pickle.dumps(before)).value()
    assert rows.shape == (40, 4)
    assert torch.equal(rows.gather(slice(None)), run.rows(SITES[0], step=0).gather(slice(None)))


def test_models_go_to_workers_as_what_makes_them(run: lamina.Run) -> None:
    with run.writer() as writer:
        writer.save({"model": {"weight": torch.full((2, 3), 2.0), "bias": torch.zeros(2)}}, step=5)

    def linear(run: lamina.Run) -> torch.nn.Module:
        return torch.nn.Linear(3, 2)

    frame = lamina.sweep(_weight, run.refresh(), model=linear, executor="processes")
    assert frame["value"].to_list() == [12.0]


def _weight(model: torch.nn.Module) -> Any:
    return lamina.measures.Estimate("weight", float(model.weight.detach().sum()), 0.0, estimator="sum")  # type: ignore[operator,arg-type]


def test_a_measure_of_the_users_own_file(own: Any, tmp_path: Path) -> None:  # noqa: F811
    run = make(tmp_path / "run")
    given: dict[str, Any] = {"pairs": lambda a, b: a.site < b.site, "sites": SITES[1:], "steps": 0, "cache": False}
    frame = lamina.sweep(own.mean_cosine, run, executor="processes", **given)
    assert frame.equals(lamina.sweep(own.mean_cosine, run, **given))
