"""A compactor and a collector that are killed at any moment, beside writers: acknowledged rows stay, bit for bit.

All rounds keep one run; what was recorded three rounds ago is deleted, so that there is something to collect.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import lamina
from tests.faults import broken
from tests.store.test_killed import STEPS, check, rows_of, write


def compact_on(path: str) -> None:
    """Compacts until it is killed."""
    while True:
        lamina.open(path).compact(progress=False)


def collect_on(path: str) -> None:
    """Collects until it is killed, without a grace."""
    while True:
        lamina.open(path).gc(grace=0, progress=False)


def kill_a_round(run: lamina.Run, life: int, chance: random.Random) -> set[int]:
    """Kills a writer, a compactor and a collector, each at some moment; returns the steps that were acknowledged."""
    context = multiprocessing.get_context("forkserver")
    end, told = context.Pipe(duplex=False)
    path = str(run.path)
    processes = [
        context.Process(target=write, args=(path, life, told, None), daemon=True),
        context.Process(target=compact_on, args=(path,), daemon=True),
        context.Process(target=collect_on, args=(path,), daemon=True),
    ]
    for process in processes:
        process.start()
    told.close()
    end.poll(200)
    for process in chance.sample(processes, len(processes)):
        time.sleep(chance.uniform(0, 0.1))
        assert process.is_alive(), f"{process} ended by itself"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    acknowledged = set()
    try:
        while True:
            acknowledged.add(end.recv())
    except EOFError:
        pass
    for process in processes:
        process.join()
    return acknowledged


def look(run: lamina.Run) -> lamina.Run:
    """Sees what is new; a log that ends in the middle of a record is reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        return run.refresh()


def rounds(path: Path, number: int) -> None:
    run, chance, alive = lamina.Run.create(path / "run"), random.Random(number), {}
    for life in range(number):
        alive[life] = kill_a_round(run, life, chance)
        for other, acknowledged in alive.items():
            check(run, [other], acknowledged)
        saved = look(run).checkpoints().collect()
        for step in {step for steps in alive.values() for step in steps if step % 16 == 0}:
            assert step in saved["step"]
            np.testing.assert_array_equal(
                run.load(step=step, part="model")["w"].view(np.uint32), rows_of(step).view(np.uint32)
            )
        if life > 2:
            old = alive.pop(life - 3)
            if any((life - 3) * STEPS <= step < (life - 2) * STEPS for step in run.steps()):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", lamina.LaminaWarning)
                    run.delete(steps=slice((life - 3) * STEPS, (life - 2) * STEPS))
            assert not old & set(run.steps())
    assert sum(map(len, alive.values())) > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lamina.LaminaWarning)
        run.compact(progress=False)
        run.gc(grace=0, progress=False)
        for life, acknowledged in alive.items():
            check(run, [life], acknowledged)
        done = run.gc(grace=0, progress=False)
    assert (done.condemned, done.removed) == ((), ())
    rows = sum(len(rows_of(step)) for step in run.steps()) * 100
    held = sum(file.stat().st_size for file in (run.path / "segments").iterdir())
    assert held < 4 * rows + (number + 4) * (2 << 20), "what was deleted is gone"


def test_a_compactor_and_a_collector_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    rounds(tmp_path, 5)


@pytest.mark.slow
def test_a_compactor_and_a_collector_that_are_killed_two_hundred_times_lose_nothing(tmp_path: Path) -> None:
    rounds(tmp_path, 200)


def test_a_collector_that_takes_too_much_is_found_out(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    with run.writer() as writer:
        for step in range(2):
            writer.append({"x": rows_of(step), "first": rows_of(step)[:, 0].view(np.int32)}, step=step).wait()
    look(run).compact(progress=False)
    with broken("gc_removes_a_segment_that_counts"):
        run.gc(grace=0, progress=False)
    with pytest.raises((AssertionError, lamina.LaminaError)):
        check(run, [0], {0, 1})
