"""A ticket that is waited for after its writer is gone: an answer at once, and the same to everybody who asks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import lamina
from lamina.errors import WriterError

X = {"x": np.ones((2, 2), np.float32)}

FULL = """
import asyncio, resource, signal, sys, numpy as np, lamina
writer = lamina.open(sys.argv[1]).writer(durable_seconds=None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
good = writer.append({"x": np.zeros((64, 256), np.float32)}, step=0)
good.wait()
# a disk that is full after 2 MiB
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
tickets = [writer.append({"x": np.zeros((1024, 256), np.float32)}, step=step) for step in range(1, 4)]
async def awaited(ticket):
    return await ticket
for ticket in tickets[::-1] + tickets:
    for ask in (ticket.wait, lambda: asyncio.run(awaited(ticket))):
        try:
            ask()
        except lamina.errors.StorageError as error:
            assert "File too large" in str(error), error
            print(ticket.state, ticket.error == error or str(ticket.error) == str(error))
assert good.wait() and good.state == "durable"
"""


async def awaited(ticket: Any) -> bool:
    return await ticket


def assert_told(ticket: Any, text: str) -> None:
    """Whoever asks is told, as often as they ask."""
    for _ in range(2):
        with pytest.raises(WriterError, match=text):
            ticket.wait(20)
        with pytest.raises(WriterError, match=text):
            asyncio.run(awaited(ticket))
    assert ticket.state == "failed"
    assert text in str(ticket.error)


@pytest.mark.timeout(60)
def test_behind_a_full_disk_every_ticket_says_why(run: lamina.Run) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(run.path)], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:-1] == ["failed True"] * 12, done.stderr
    assert run.refresh().steps() == [0]


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_ticket_of_another_process_tells_that_it_is_one(run: lamina.Run) -> None:
    with run.writer(durable_seconds=None) as writer:
        ticket = writer.append(X, step=0)
        child = os.fork()
        if child == 0:
            try:
                assert_told(ticket, "before this process was forked")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert ticket.wait(20)


@pytest.mark.timeout(60)
def test_a_ticket_of_a_writer_that_was_fenced_says_so(run: lamina.Run) -> None:
    writer = run.writer(durable_seconds=None)
    ticket = writer.append(X, step=0)
    (run.path / "fences").mkdir(exist_ok=True)
    (run.path / "fences/000000").touch()  # what others do who take the writer for dead
    assert_told(ticket, "another process closed this writer")
    with pytest.raises(WriterError, match="stopped"):
        writer.append(X, step=1)
    with pytest.raises(WriterError):
        writer.close()


@pytest.mark.timeout(60)
def test_tickets_outlive_a_writer_that_was_closed_or_forgotten(run: lamina.Run) -> None:
    with run.writer(durable_seconds=None) as writer:
        closed = writer.append(X, step=0)
    forgetful = run.writer(durable_seconds=None)
    forgotten = forgetful.append(X, step=1)
    del forgetful, writer
    gc.collect()
    for ticket in (closed, forgotten):
        assert ticket.wait(20)
        assert asyncio.run(awaited(ticket))
        assert (ticket.state, ticket.error) == ("durable", None)
    assert run.refresh().steps() == [0, 1]
