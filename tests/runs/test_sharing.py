"""Writers of one process share a log; tickets can be awaited; a fork shares nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamina
from lamina.errors import SchemaError, WriterError
from tests.faults import broken

ONES = np.ones((3, 2), np.float32)


def logs(run: lamina.Run) -> int:
    return len(list(run.path.glob("logs/*")))


def test_writers_with_the_same_options_share_a_log_and_others_do_not(run: lamina.Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    with run.writer() as first, lamina.open(tmp_path / "link").writer() as second, run.writer(rank=1) as third:
        second.append({"x": ONES}, step=1)
        first.append({"x": ONES}, step=0)
        third.append({"x": ONES}, step=2)
        with run.writer(durable_rows=7):
            assert logs(run) == 3
    assert [writer.rank for writer in run.refresh().status.writers] == [None, 1, None]
    assert run.activations().collect()["step"].to_list() == [1] * 3 + [0] * 3 + [2] * 3


def test_a_log_ends_with_its_last_writer_and_the_next_writer_gets_another(run: lamina.Run) -> None:
    first, second = run.writer(), run.writer()
    first.append({"x": ONES}, step=0)
    first.close()
    assert run.refresh().rows("x").shape == (3, 2), "what a writer appended is durable when it is closed"
    assert run.status.state == "running"
    with pytest.raises(WriterError, match="closed"):
        first.append({"x": ONES}, step=0)
    second.append({"x": ONES}, step=1)
    second.close("it was enough")
    assert (run.refresh().status.state, run.status.writers[0].error) == ("failed", "it was enough")
    with run.writer() as third:
        third.append({"x": ONES}, step=2)
    assert logs(run) == 2
    assert run.refresh().steps() == [0, 1, 2]


def test_another_run_at_the_same_place_is_another_run(run: lamina.Run) -> None:
    writer = run.writer()
    shutil.rmtree(run.path)
    again = lamina.Run.create(run.path)
    with again.writer() as other:
        other.append({"x": ONES}, step=0)
    assert again.refresh().steps() == [0]
    writer.close()


def test_threads_share_a_writer_or_have_their_own(run: lamina.Run) -> None:
    with run.writer() as shared:

        def work(number: int) -> None:
            writer = shared if number % 2 else run.writer()
            for step in range(20):
                assert writer.append({"x": np.full((2, 2), number)}, step=step, thread=number).wait()
                writer.log({"loss": number}, step=step)
            if writer is not shared:
                writer.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert logs(run) == 1
    rows = run.refresh().activations().collect()
    assert rows.group_by("thread", "step").len()["len"].to_list() == [2] * 160
    assert (rows["x"].arr.max() == rows["thread"]).all()
    assert len(run.metrics().collect()) == 160
    assert rows["row"].n_unique() == 320


def test_tickets_are_awaited_beside_other_work(run: lamina.Run) -> None:
    async def work() -> list[Any]:
        with run.writer(durable_seconds=None) as writer:
            tickets = [writer.append({"x": ONES}, step=step) for step in range(50)]

            async def until_durable(ticket: Any) -> bool:
                return await ticket

            done = await asyncio.gather(*(until_durable(ticket) for ticket in tickets))
            assert [ticket.state for ticket in tickets] == ["durable"] * 50
            assert await tickets[0], "what is durable can be awaited again"
            cancelled = asyncio.ensure_future(until_durable(writer.append({"x": ONES}, step=50)))
            await asyncio.sleep(0)
            cancelled.cancel()
            assert await writer.append({"x": ONES}, step=51)
            assert cancelled.cancelled() or cancelled.done()
            return done

    assert asyncio.run(work()) == [True] * 50
    assert run.refresh().steps() == list(range(52))


def test_a_limit_of_rows_makes_them_durable_unasked(run: lamina.Run) -> None:
    with run.writer(durable_rows=6, durable_seconds=None) as writer:
        ticket = writer.append({"x": ONES}, step=0)
        assert ticket.state == "staged"
        writer.append({"x": ONES}, step=0)
        while ticket.state != "durable":
            time.sleep(0.001)
    with pytest.raises(SchemaError, match="durable_bytes is 0"):
        run.writer(durable_bytes=0)
    with pytest.raises(SchemaError, match="durable_seconds"):
        run.writer(durable_seconds=-1)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_shares_nothing_and_can_write_for_itself(run: lamina.Run) -> None:
    writer = run.writer(durable_seconds=None)
    ticket = writer.append({"x": ONES}, step=0)
    child = os.fork()
    if child == 0:
        failures = 0
        for call in (
            lambda: writer.append({"x": ONES}, step=7),
            lambda: writer.log({"loss": 1}, step=7),
            writer.flush,
            lambda: ticket.wait(1),
            lambda: asyncio.run(_await(ticket)),
        ):
            try:
                call()
            except WriterError as error:
                failures += "forked" in str(error)
        writer.close()
        told = isinstance(ticket.error, WriterError) and ticket.state == "failed"
        with run.writer(durable_seconds=None) as own:
            own.append({"x": ONES}, step=1)
        del writer, ticket
        os._exit(0 if failures == 5 and told else 1)
    assert os.waitpid(child, 0)[1] == 0
    writer.append({"x": ONES}, step=2)
    writer.close()
    assert logs(run) == 2
    assert run.refresh().steps() == [0, 1, 2]


async def _await(ticket: Any) -> bool:
    return await ticket


def test_logs_that_are_not_shared_are_noticed(run: lamina.Run, tmp_path: Path) -> None:
    with broken("every_writer_opens_a_log_of_its_own"), pytest.raises(AssertionError):
        test_writers_with_the_same_options_share_a_log_and_others_do_not(run, tmp_path)
