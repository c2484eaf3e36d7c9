"""A queue that is full: rows wait, are dropped and counted, or raise; never silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamina
from lamina.errors import QueueFullError, SchemaError

LARGE = np.ones((70, 1 << 20), np.uint8)
"""More than the queue holds: taken when that is empty, and in nobody else's company."""


def fill(writer: lamina.Writer) -> tuple[list[Any], int]:
    """Appends until one did not fit; returns the tickets and how many were taken."""
    tickets = []
    for step in range(50):
        tickets.append(writer.append({"a": LARGE, "b": LARGE[:, 0]}, step=step))
        if tickets[-1].state == "dropped":
            return tickets, step
    raise AssertionError("the disk was faster than 50 copies of 70 MiB")


def test_dropped_rows_are_counted_recorded_and_warned_of(run: lamina.Run) -> None:
    writer = run.writer(full="drop")
    tickets, taken = fill(writer)
    assert isinstance(tickets[-1].error, QueueFullError)
    with pytest.raises(QueueFullError, match="dropped"):
        tickets[-1].wait()
    writer.log({"loss": 1.0}, step=0)
    writer.flush()
    assert run.refresh().status.dropped == {"a": 70, "b": 70}, "durable before the writer is closed"
    with pytest.warns(lamina.LaminaWarning, match="70 rows were dropped while the queue was full: a 70, b 70"):
        writer.close()
    status = run.refresh().status
    assert (status.state, status.dropped_rows, status.writers[0].dropped_rows) == ("finished", 70, 70)
    assert str(status) == "finished (70 rows dropped)"
    assert run.sites()["rows"].to_list() == [70 * taken] * 2
    assert len(run.metrics().collect()) == 1


def test_a_full_queue_raises_before_anything_is_staged(run: lamina.Run) -> None:
    taken = 0
    with run.writer(full="raise") as writer:
        for step in range(50):
            try:
                writer.append({"a": LARGE, "b": LARGE[:, 0]}, step=step)
            except QueueFullError:
                break
            taken += 1
        else:
            raise AssertionError("the queue was never full")
        writer.flush()
        writer.append({"a": LARGE[:1]}, step=99)
    assert run.refresh().sites()["rows"].to_list() == [70 * taken + 1, 70 * taken]
    assert run.status.dropped == {}


def test_rows_wait_by_default(run: lamina.Run) -> None:
    with run.writer() as writer:
        for step in range(3):
            writer.append({"a": LARGE}, step=step)
    assert run.refresh().sites()["rows"].item() == 210


def test_an_unknown_policy_is_refused(run: lamina.Run) -> None:
    with pytest.raises(SchemaError, match="full is"):
        run.writer(full="perhaps")  # type: ignore[arg-type]
