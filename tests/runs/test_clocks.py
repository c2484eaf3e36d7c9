"""A clock that is set back: nothing is lost, and the order of writing stays."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest

import lamina
from lamina.runs.status import status


def test_metrics_keep_the_order_of_writing(run: lamina.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([3000, 1000, 2000])
    monkeypatch.setattr(time, "time_ns", lambda: next(seconds) * 10**9)
    with run.writer() as writer:
        for step in range(3):
            writer.log({"loss": float(step)}, step=step)
        writer.append({"x": np.ones((1, 2))}, step=0)
    logged = run.refresh().metrics().collect()
    assert logged["step"].to_list() == [0, 1, 2]
    assert logged["time"].to_list() == [datetime.fromtimestamp(at, UTC) for at in (3000, 1000, 2000)]
    assert not run.problems


def test_a_writer_may_be_closed_before_it_was_opened() -> None:
    writer = {"ordinal": 0, "state": "finished", "error": None, "host": "here", "pid": 1, "rank": None}
    found = status([writer | {"opened": 2_000_000, "closed": 1_000_000, "dropped_rows": 0, "dropped": {}}])
    assert found.state == "finished"
    assert found.writers[0].opened == datetime.fromtimestamp(2, UTC)
    assert found.writers[0].closed == datetime.fromtimestamp(1, UTC)
