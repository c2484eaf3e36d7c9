"""What `save` returned from holds the old values, whatever the caller does next; threads and failing disks included."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina.errors import LaminaError, WriterError
from tests.faults import broken


def check_overwritten(run: lamina.Run) -> None:
    """Every tensor is overwritten right after each save, while the saves before are still being written."""
    state = {f"layer {at}": torch.zeros(1 << 18) for at in range(12)} | {"small": torch.zeros(3)}
    with run.writer() as writer:
        for step in range(6):
            for tensor in state.values():
                tensor.fill_(step)
            writer.save({"model": state}, step=step)
            for tensor in state.values():
                tensor.fill_(-1)
    run.refresh()
    for step in range(6):
        for name, tensor in run.load(step).items():
            assert (tensor == step).all(), (step, name)


def test_the_old_values_are_stored(run: lamina.Run) -> None:
    check_overwritten(run)


def test_a_save_that_copies_late_would_be_noticed(run: lamina.Run) -> None:
    with broken("saves_keep_what_they_are_given"), pytest.raises(AssertionError):
        check_overwritten(run)


def test_tensors_of_every_length_around_a_buffer_come_back(run: lamina.Run) -> None:
    lengths = [1, (1 << 18) - 1, (1 << 18) + 1, (1 << 22) + 3, (1 << 22) - 5, 7, 9 << 19]
    state = [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]
    with run.writer() as writer:
        writer.save({"model": state}, step=0)
    assert all(map(torch.equal, run.refresh().load(0), state))


def test_threads_that_save_at_once(run: lamina.Run) -> None:
    def saves(writer: lamina.Writer, thread: int) -> None:
        state = torch.empty(300_000)
        for step in range(10):
            state.fill_(10 * thread + step)
            writer.save({f"part {thread}": state}, step=step)

    with run.writer() as writer, run.writer() as other:
        threads = [threading.Thread(target=saves, args=(one, at)) for at, one in enumerate((writer, writer, other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    run.refresh()
    for step in range(10):
        found = {part: state.unique().tolist() for part, state in run.load(step, part=None).items()}
        assert found == {f"part {thread}": [10 * thread + step] for thread in range(3)}


def test_a_save_is_seen_only_when_it_is_durable(run: lamina.Run) -> None:
    with run.writer(durable_seconds=None) as writer:
        first = writer.save({"model": torch.ones(3)}, step=1)
        first.wait()
        second = writer.save({"model": torch.ones(3) * 2}, step=2)
        assert run.refresh().load("last").tolist() == [1, 1, 1]
        assert run.checkpoints().select("step").collect().to_series().to_list() == [1]
        assert second.state in ("staged", "written")
        second.wait()
        assert run.refresh().load("last").tolist() == [2, 2, 2]


def test_what_did_not_change_is_staged_and_not_written(run: lamina.Run) -> None:
    frozen = torch.randn(1 << 20)
    with run.writer() as writer:
        for step in range(4):
            writer.save({"model": {"frozen": frozen, "step": step}}, step=step).wait()
    assert sum(path.stat().st_size for path in run.path.glob("chunks/*")) == frozen.nbytes


def limited(size: int, folder: Path) -> None:
    """In a process of its own: files may be no longer than `size`, then save."""
    run = lamina.open(folder)
    good = torch.full((1 << 20,), 3.0)
    with run.writer() as writer:
        writer.save({"model": good}, step=0).wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        ticket = writer.save({"model": torch.randn(4 << 20)}, step=1)
        with pytest.raises(LaminaError, match="File too large"):
            ticket.wait()
        assert ticket.state == "failed"
        assert "large" in str(ticket.error)
        with pytest.raises(WriterError, match="the writer stopped"):
            writer.save({"model": good}, step=2)
        with pytest.raises(LaminaError, match="File too large"):
            writer.close()
    os._exit(17)


def test_a_disk_that_is_full_fails_the_ticket_and_keeps_what_was_acknowledged(run: lamina.Run) -> None:
    code = "import sys; from tests.runs.test_saving import limited; limited(6 << 20, sys.argv[1])"
    command = [sys.executable, "-c", code, str(run.path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 17, done.stderr
    assert run.refresh().checkpoints().select("step").collect().to_series().to_list() == [0]
    assert run.load(0).unique().tolist() == [3]
    with run.writer() as writer:
        writer.save({"model": torch.ones(2)}, step=1)
    assert run.refresh().load("last").tolist() == [1, 1]


def test_lent_memory_is_saved_without_a_copy_and_kept_until_it_is_written(run: lamina.Run) -> None:
    from lamina import _core

    pool = _core.Pool()
    writer = _core.Writer(str(run.path), durable_seconds=None)
    states: list[Any] = []
    for step in range(3):
        memory = pool.take(4 << 20)
        np.frombuffer(memory, np.uint8)[:] = step + 1  # pyright: ignore[reportArgumentType,reportCallIssue]
        writer.save(step, [("model", '{"t":0}', "[]", [("w", "u8", (4 << 20,), memory)])])
        del memory
        states.append(step + 1)
    writer.flush()
    assert pool.held()[0] == 0
    writer.close()
    run.refresh()
    assert [run.load(step).unique().item() for step in range(3)] == states
