"""Checkpoints that four processes save and two load, through a run; and what is left of those that die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

import lamina
from tests.distributed import processes


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> lamina.Run:
    folder = tmp_path_factory.mktemp("processes")
    run = lamina.Run.create(folder / "run")
    command = [sys.executable, "-m", "tests.distributed.processes", str(folder)]
    # a group, so that none of the processes outlives the test
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        codes = json.loads(started.communicate(timeout=300)[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    told = "\n".join(f"{file.name}: {file.read_text()}" for file in sorted(folder.glob("*.txt")))
    assert codes == {"saved": [0, 0, 0, 3], "loaded": [3, 0]}, told
    return run.refresh()


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return repr(one) == repr(other)


@pytest.mark.parametrize("step", [processes.DCP, processes.ASYNC])
def test_a_run_shows_whole_tensors(run, step):
    state = run.load(step, part=None)
    assert equal(state["model"], dict(processes.state_of(*processes.trained())["model"]))
    assert equal(state["optimizer"], processes.state_of(*processes.trained())["optimizer"])
    assert repr(state["numbers"]) == "{'step': 7, 'rate': 0.1, 'betas': (0.5, nan)}"


def test_a_state_that_lamina_saves_comes_back_exactly(run):
    model, optimizer = processes.trained()
    state = run.load(processes.OWN, part=None)
    assert equal(state["optimizer"], optimizer.state_dict()), "keys of parameters are integers still"
    assert type(state["model"]) is type(model.state_dict())
    assert equal(dict(state["model"]), dict(model.state_dict()))


@pytest.mark.parametrize("part", ["state", "own"])
def test_every_placement_is_put_together(run, part):
    assert equal(run.load(processes.COLUMNS, part=part), processes.columns(divide=False))


def test_what_is_listed_are_the_tensors_of_the_state(run):
    frame = run.checkpoints().collect()
    model = frame.filter(step=processes.DCP, part="model")
    assert model["tensor"].to_list() == [f"{at}.{kind}" for at in range(4) for kind in ("weight", "bias")]
    assert model["shape"].to_list()[0] == [7, 4]
    assert model["bytes"].to_list()[0] == 7 * 4 * 4
    assert frame.filter(step=processes.ASYNC)["stored"].sum() == 0, "the same again costs nothing"


def test_nothing_is_seen_of_a_checkpoint_that_some_process_could_not_save(run):
    steps = {processes.DCP, processes.ASYNC, processes.OWN, processes.COLUMNS}
    assert set(run.checkpoints().collect()["step"]) == steps
    assert lamina.open(run.path, strict=True).problems == []


def test_shards_that_no_checkpoint_names_are_garbage_and_those_of_others_stay(run, tmp_path):
    copied = tmp_path / "run"
    lamina.merge([run], copied)
    for step in (processes.DCP, processes.COLUMNS):
        assert equal(lamina.open(copied).load(step, part=None), run.load(step, part=None))
    assert run.verify().problems.is_empty()
