"""The threads that help a gather: in a fork, under several callers, under interrupts, and when something is damaged."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import DamagedError

N = 4096


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> lamina.Rows:
    """Rows of 2 KiB that hold their number, in four groups; 2 MiB and more are gathered by several threads."""
    run = lamina.Run.create(tmp_path_factory.mktemp("helpers") / "run")
    with run.writer() as writer:
        for start in range(0, N, 1024):
            writer.append({"x": np.repeat(np.arange(start, start + 1024, dtype=np.float32)[:, None], 512, 1)}, step=0)
            writer.flush()
    return run.refresh().rows("x")


def is_right(rows: lamina.Rows, seed: int, threads: int, count: int = 2048) -> bool:
    at = np.random.default_rng(seed).integers(0, N, count)
    out = np.full((count, 512), -1, np.float32)
    rows.gather(at, out=torch.from_numpy(out), threads=threads)
    return bool((out == at[:, None]).all())


def named(name: str) -> int:
    """How many threads of this process have that name; Linux keeps 15 letters."""
    tasks = Path("/proc/self/task").iterdir()
    return sum((task / "comm").read_text().strip() == name[:15] for task in tasks)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 511, 512, 513, 4096])
def test_any_number_of_rows_and_threads(rows: lamina.Rows, count: int, threads: int) -> None:
    assert is_right(rows, count, threads, count)


def test_helpers_stay_and_are_no_more_than_one_call_asks_for(rows: lamina.Rows) -> None:
    for seed in range(20):
        assert is_right(rows, seed, 3)
    while (before := named("lamina-helper")) < 2:  # a thread takes its name when it first runs
        time.sleep(0.001)
    for seed in range(20):
        assert is_right(rows, seed, 3)
    assert named("lamina-helper") == before


def test_several_callers_at_once(rows: lamina.Rows) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(seed for seed in range(100 * number, 100 * number + 40) if not is_right(rows, seed, 3))

    callers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_gets_helpers_of_its_own(rows: lamina.Rows) -> None:
    """Forked while another thread gathers, so that some of the forks find a lock that nobody will ever open."""
    stop = threading.Event()

    def gather() -> None:
        seed = 0
        while not stop.is_set():
            assert is_right(rows, seed := seed + 1, 3)

    busy = threading.Thread(target=gather)
    busy.start()
    try:
        for seed in range(10):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)  # not the test runner's
                signal.alarm(20)  # ends a child that waits for helpers it does not have
                fine = is_right(rows, seed, 3) and is_right(rows, seed + 1, 3)
                while named("lamina-helper") < 2:  # a thread takes its name when it first runs
                    time.sleep(0.001)
                os._exit(0 if fine else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        busy.join()
    assert is_right(rows, 0, 3)


def test_interrupts_leave_the_helpers_as_they_were(rows: lamina.Rows) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    try:
        for seed in range(20):
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005 * (seed + 1))
            with pytest.raises(KeyboardInterrupt):
                all(is_right(rows, seed, 3) for _ in itertools.count())
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert is_right(rows, 0, 3)


def test_damage_that_a_helper_meets_is_told(rows: lamina.Rows) -> None:
    path = Path(str(rows.stored))
    segment = next((path / "segments").iterdir())
    whole = segment.read_bytes()
    try:
        for at in range(2 << 20, 8 << 20, 1 << 20):
            segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            for _ in range(3):
                with pytest.raises(DamagedError, match="checksum"):
                    lamina.open(path).rows("x").gather(range(N), threads=3)
    finally:
        segment.write_bytes(whole)
    assert is_right(lamina.open(path).rows("x"), 0, 3)
