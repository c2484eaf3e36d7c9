"""What a writer does behind the staging copy needs no GIL, and who waits for it holds none."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from tests.faults import broken

ROWS = np.arange(2**18, dtype=np.float32).reshape(1024, 256)

WATCHER = """
import os, sys, time
import lamina
run, expected, until = lamina.open(sys.argv[1]), int(sys.argv[2]), time.monotonic() + float(sys.argv[3])
os.write(1, b"r")
while time.monotonic() < until:
    if run.refresh().sites()["rows"].sum() == expected and run.metrics().collect().height == 1:
        os.write(1, b"y")
        break
    time.sleep(0.01)
else:
    os.write(1, b"n")
"""


@pytest.fixture
def held_gil() -> Iterator[Callable[[int], bytes]]:
    """Reads a byte as C does that never heard of the GIL: no other Python thread runs until it is there."""
    read = ctypes.PyDLL(None).read
    byte = ctypes.create_string_buffer(1)

    def wait(pipe: int) -> bytes:
        assert read(pipe, byte, 1) == 1
        return byte.raw

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # between the lines of this test nobody takes it either
    yield wait
    sys.setswitchinterval(interval)


def check_written(run: lamina.Run, held_gil: Any, seconds: float = 20) -> None:
    """Rows become durable, as another process sees, while this one holds the GIL from before to after."""
    command = [sys.executable, "-c", WATCHER, str(run.path), "2048", str(seconds)]
    with (
        run.writer(durable_seconds=0.2) as writer,
        subprocess.Popen(command, stdout=subprocess.PIPE) as watcher,
    ):
        assert watcher.stdout
        pipe = watcher.stdout.fileno()
        assert os.read(pipe, 1) == b"r"
        writer.append({"x": ROWS, "y": ROWS[:, ::2]}, step=0, example=np.arange(1024))
        writer.log({"loss": 1.0}, step=0)
        ticket = writer.save({"model": {"w": ROWS}}, step=0)
        assert ticket.state == "staged", "or it would tell nothing"
        seen = held_gil(pipe)
        assert seen == b"y", "nothing became durable while the GIL was held"
    np.testing.assert_array_equal(run.refresh().rows("x").gather(range(1024)).numpy(), ROWS)


@pytest.mark.timeout(120)
def test_rows_metrics_and_checkpoints_are_written_while_somebody_else_holds_the_gil(
    run: lamina.Run, held_gil: Any
) -> None:
    check_written(run, held_gil)


@pytest.mark.timeout(120)
def test_a_writer_that_needs_the_gil_would_be_noticed(run: lamina.Run, held_gil: Any) -> None:
    with broken("writers_write_in_a_python_thread"), pytest.raises(AssertionError, match="while the GIL was held"):
        check_written(run, held_gil, seconds=2)


@pytest.fixture
def turns(held_gil: Any) -> Iterator[Callable[[], int]]:
    """How many turns another thread has had; it gets one only when this one lets go of the GIL by itself."""
    done, stop = [0], threading.Event()

    def work() -> None:
        while not stop.is_set():
            done[0] += 1
            time.sleep(0.0001)

    thread = threading.Thread(target=work)
    thread.start()
    yield lambda: done[0]
    stop.set()
    thread.join()


LARGE = np.ones((24, 1 << 20), np.uint8)


def let_go(what: str, run: lamina.Run, turns: Callable[[], int]) -> bool:
    """Whether the other thread had a turn while the call ran."""
    with run.writer(durable_seconds=None) as writer:
        ticket = writer.append({"x": LARGE}, step=0)
        calls: dict[str, Callable[[], Any]] = {
            "append": lambda: writer.append({"x": LARGE}, step=1),
            "wait": ticket.wait,
            "flush": writer.flush,
            "save": lambda: writer.save({"model": {"x": LARGE}}, step=1),
            "close": writer.close,
        }
        before = turns()
        calls[what]()
        return turns() > before


@pytest.mark.parametrize("what", ["append", "wait", "flush", "save", "close"])
def test_other_threads_run_while_a_writer_copies_and_waits(tmp_path: Path, turns: Any, what: str) -> None:
    # a busy machine may give the other thread no core for the few milliseconds of one call
    assert any(let_go(what, lamina.Run.create(tmp_path / str(attempt)), turns) for attempt in range(20))


def test_that_test_notices_who_holds_the_gil(run: lamina.Run, turns: Any) -> None:
    before = turns()
    ctypes.PyDLL(None).usleep(20_000)
    assert turns() == before
