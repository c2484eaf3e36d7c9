"""Writers that are killed at any moment: every acknowledged row is there, bit for bit, and the next writers go on.

All rounds write one run, and nobody cleans up between them.
"""

from __future__ import annotations

import random
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lamina
from tests.faults import broken
from tests.store.killing import kill_a_round

STEPS = 10_000
"""Steps that one life of a writer may take: each step is written by one life alone."""
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(step: int) -> np.ndarray:
    """What is recorded at a step: few rows or many, any bits."""
    chance = np.random.default_rng(step)
    rows = int(chance.choice([1, 7, 64, 4000], p=[0.4, 0.3, 0.28, 0.02]))
    return chance.integers(0, 2**32, (rows, 24), np.uint32).view(np.float32)


def write(path: str, life: int, told: Connection, fault: str | None) -> None:
    """Writes until it is killed, and tells each step whose rows are durable."""
    with broken(fault) if fault else nullcontext():
        writer = lamina.open(path).writer()
        for step in range(life * STEPS, (life + 1) * STEPS):
            x = rows_of(step)
            sites = {"x": x, "first": x[:, 0].view(np.int32)}
            ticket = writer.append(sites, step=step, seen=START + timedelta(seconds=step), text=f"step {step}")
            writer.log({"loss": step + 0.5}, step=step)
            if step % 16 == 0:
                writer.save({"model": {"w": x}}, step=step)
            ticket.wait()
            told.send(step)


def check(run: lamina.Run, lives: list[int], acknowledged: set[int]) -> None:
    """What was acknowledged is there; what else is there is what was written, up to some row."""
    with warnings.catch_warnings():
        # a log that ends in the middle of a record is reported
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        run.refresh()
    first, behind = min(lives) * STEPS, (max(lives) + 1) * STEPS
    frames = {}
    if any(first <= step < behind for step in run.steps()):
        frame = run.activations(["x", "first"], step=slice(first, behind)).sort("row").collect()
        frames = {step: rows for (step,), rows in frame.group_by("step")}
    missing = acknowledged - frames.keys()
    assert not missing, f"acknowledged and lost: {sorted(missing)}"
    for step, rows in frames.items():
        assert isinstance(step, int)
        x = rows_of(step)
        assert rows.height == len(x) if step in acknowledged else rows.height <= len(x)
        assert rows["x"].to_numpy().tobytes() == x[: rows.height].tobytes()
        assert rows["first"].to_numpy().tobytes() == x[: rows.height, 0].tobytes()
        assert rows["seen"].unique().to_list() == [START + timedelta(seconds=step)]
        assert rows["text"].unique().to_list() == [f"step {step}"]
    logged = run.metrics().filter(pl.col("step").is_between(first, behind, closed="left")).collect()
    assert (logged["value"] == logged["step"] + 0.5).all()


def rounds(path: Path, writers: int, number: int, *, fault: str | None = None) -> None:
    run, chance, total = lamina.Run.create(path / "run"), random.Random(writers), 0
    for turn in range(number):
        lives = [turn * writers + life for life in range(writers)]
        acknowledged = kill_a_round(write, run, lives, chance, fault, opening=0.2)
        check(run, lives, acknowledged)
        total += len(acknowledged)
    assert total > number, "most writers lived long enough to acknowledge something"
    assert {writer.state for writer in run.status.writers} == {"abandoned"}
    with run.writer() as writer:
        writer.append({"x": rows_of(0)}, step=10**6)
    assert run.refresh().status.writers[-1].state == "finished"


@pytest.mark.parametrize("writers", [1, 4])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, writers: int) -> None:
    rounds(tmp_path, writers, 5)


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 4])
def test_what_was_acknowledged_outlives_two_hundred_kills(tmp_path: Path, writers: int) -> None:
    rounds(tmp_path, writers, 200)


def test_a_writer_that_acknowledges_too_early_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        rounds(tmp_path, 1, 3, fault="tickets_are_told_durable_at_once")
