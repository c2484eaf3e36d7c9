"""Writers that are killed while they save: what was acknowledged is there with every bit, all else whole or not at all.

All rounds write one run, and each step belongs to one life.
"""

from __future__ import annotations

import random
import warnings
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from tests.faults import broken
from tests.store.killing import kill_a_round

STEPS = 10_000
"""Steps that one life of a writer may take."""


def noise(seed: int, length: int) -> torch.Tensor:
    """Any bits: NaNs with payloads, infinities and negative zeros among them."""
    return torch.from_numpy(np.random.default_rng(seed).integers(-(2**31), 2**31, length).astype(np.int32))


def state_of(step: int) -> dict[str, Any]:
    """What is saved at a step: frozen and changing tensors, small ones and some of several chunks."""
    length = 700_000 if step % 5 == 0 else 3000
    weight = noise(step, length).view(torch.float32)
    model = {"frozen": noise(2**31, 400_000), "weight": weight, "tied": weight, "half": weight[: length // 2]}
    return {"model": model, "optimizer": {"step": step, "moments": [noise(step + 1, 500).view(torch.bfloat16)]}}


def write(path: str, life: int, told: Connection, fault: str | None) -> None:
    """Saves until it is killed, and tells each step whose checkpoint is durable."""
    with broken(fault) if fault else nullcontext():
        writer = lamina.open(path).writer()
        waiting = []
        for step in range(life * STEPS, (life + 1) * STEPS):
            state = state_of(step)
            waiting.append((step, writer.save(state, step=step)))
            for tensor in state["model"].values():
                tensor.view(torch.int32).zero_()  # as an optimizer would, in place
            if step % 3 == 0:
                for saved, ticket in waiting:
                    ticket.wait()
                    told.send(saved)
                waiting.clear()


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and torch.equal(found.view(torch.uint8), expected.view(torch.uint8))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


def check(run: lamina.Run, lives: list[int], acknowledged: set[int]) -> None:
    with warnings.catch_warnings():
        # a log that ends in the middle of a record is reported
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        run.refresh()
    there = set(run.checkpoints().select("step").collect().to_series())
    assert not acknowledged - there, f"acknowledged and lost: {sorted(acknowledged - there)}"
    for step in sorted(there):
        if step // STEPS in lives:
            loaded = run.load(step, part=None)
            assert same(loaded, state_of(step)), step
            assert loaded["model"]["tied"] is loaded["model"]["weight"]


def rounds(path: Path, writers: int, number: int, *, fault: str | None = None) -> None:
    run, chance, total = lamina.Run.create(path / "run"), random.Random(writers), 0
    for turn in range(number):
        lives = [turn * writers + life for life in range(writers)]
        acknowledged = kill_a_round(write, run, lives, chance, fault)
        check(run, lives, acknowledged)
        total += len(acknowledged)
    assert total >= number, "the writers lived long enough to acknowledge something"
    with run.writer() as writer:
        writer.save(state_of(5), step=10**6)
    assert same(run.refresh().load(10**6, part=None), state_of(5))


@pytest.mark.parametrize("writers", [1, 3])
def test_an_acknowledged_checkpoint_outlives_a_kill(tmp_path: Path, writers: int) -> None:
    rounds(tmp_path, writers, 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("writers", [1, 3])
def test_acknowledged_checkpoints_outlive_two_hundred_kills(tmp_path: Path, writers: int) -> None:
    rounds(tmp_path, writers, 200)


def test_a_writer_that_acknowledges_checkpoints_too_early_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        rounds(tmp_path, 1, 3, fault="tickets_are_told_durable_at_once")
