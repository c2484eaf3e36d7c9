"""A run that is opened, again and again, while others record, delete, compact and collect without a grace."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.errors import ExpiredError
from tests.faults import broken

STEPS, SHOWN = 24, 4


def keep(path: str) -> None:
    """Records a step, deletes the one before the last few, compacts and collects."""
    run = lamina.open(path)
    for step in range(1, STEPS):
        with run.writer() as writer:
            writer.append({"x": np.full((8, 3), step, np.float32)}, step=step, example=np.arange(8))
            writer.save({"model": {"w": np.full(10, step)}}, step=step)
        run.refresh()
        if step >= SHOWN:
            run.delete(steps=step - SHOWN)
        run.compact(progress=False)
        run.gc(grace=0, progress=False)


def look(path: Path) -> int:
    """Opens the run and asks everything; returns its rows. What is collected meanwhile is looked for again."""
    run = lamina.open(path, strict=True)
    while True:
        try:
            steps = run.steps()
            assert steps == list(range(steps[0], steps[-1] + 1))
            frame = run.activations("x").collect()
            for step in steps:
                of_step = frame.filter(step=step)
                assert of_step["example"].sort().to_list() == list(range(8))
                assert of_step["x"].arr.min().to_list() == of_step["x"].arr.max().to_list() == [step] * 8
                assert run.rows("x", step=step).gather([7, 0]).tolist() == [[step] * 3] * 2
            saved = run.checkpoints().collect()["step"].to_list()
            assert run.load(step=saved[-1])["w"].tolist() == [saved[-1]] * 10
        except ExpiredError:
            run.refresh()
        else:
            return frame.height


@pytest.mark.timeout(120)
def test_a_run_opens_and_answers_while_it_is_collected(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        writer.append({"x": np.zeros((8, 3), np.float32)}, step=0, example=np.arange(8))
        writer.save({"model": {"w": np.zeros(10)}}, step=0)
    keeper = multiprocessing.get_context("forkserver").Process(target=keep, args=(str(run.path),))
    keeper.start()
    looks = 0
    while keeper.is_alive():
        assert look(run.path) >= 8
        looks += 1
    assert keeper.exitcode == 0
    assert looks > 3
    assert look(run.path) == 8 * SHOWN
    removed = {f"segments/{number:06}-000000.safetensors" for number in range(1, STEPS)}
    there = {f"segments/{path.name}" for path in (run.path / "segments").iterdir()}
    assert len(removed - there) > STEPS // 2, "much was collected"


def test_a_reader_that_does_not_look_again_would_be_noticed(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(3):
            writer.append({"x": np.full((8, 3), step, np.float32)}, step=step, example=np.arange(8)).wait()
        writer.save({"model": {"w": np.full(10, 2)}}, step=2)
    run.refresh().compact(progress=False)
    with broken("gc_removes_a_segment_that_counts"):
        run.gc(grace=0, progress=False)
    with pytest.raises((AssertionError, lamina.LaminaError)):
        look(run.path)
