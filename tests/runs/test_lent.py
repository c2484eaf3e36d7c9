"""Memory that is lent to a writer: stored as it is, and used again only when it is written."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

import lamina
from lamina import _core
from lamina.runs.buffers import Lent
from tests.faults import broken


def lent(pool: _core.Pool, value: torch.Tensor) -> Lent:
    memory = pool.take(value.nbytes)
    return Lent(torch.frombuffer(memory, dtype=value.dtype).view(value.shape).copy_(value), memory)


def values(rows: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, 256, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture
def run(tmp_path):
    return lamina.Run.create(tmp_path / "run")


def stored(run: lamina.Run, site: str) -> torch.Tensor:
    rows = run.refresh().rows(site)
    return rows.gather(range(len(rows)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int8])
def test_rows_that_are_lent_and_copied_in_turns_come_back_in_order(run, dtype):
    pool, parts = _core.Pool(), [values(rows, rows, dtype) for rows in (3, 700, 1, 64, 900)]
    with run.writer() as writer:
        for step, part in enumerate(parts):
            given = lent(pool, part) if step % 2 else part
            writer.append({"x": given, "y": part}, step=step, example=np.arange(len(part)))
    for site in ("x", "y"):
        assert torch.equal(stored(run, site), torch.cat(parts))
    run.verify()


def test_rows_that_fill_several_row_groups_come_back(run):
    pool, part = _core.Pool(), values(40_000)
    assert part.nbytes > 2 * 2**24
    with run.writer() as writer:
        for step in range(2):
            writer.append({"x": lent(pool, part)}, step=step)
    assert torch.equal(stored(run, "x"), torch.cat([part, part]))
    run.verify()


def test_a_mask_keeps_the_rows_of_lent_memory_too(run):
    part = values(100)
    mask = torch.arange(100) % 3 == 0
    with run.writer() as writer:
        writer.append({"x": lent(_core.Pool(), part)}, step=0, mask=mask)
    assert torch.equal(stored(run, "x"), part[mask])


def test_memory_is_in_use_until_it_is_written(run):
    pool, part = _core.Pool(), values(64)
    with run.writer(durable_seconds=None) as writer:
        writer.append({"x": lent(pool, part)}, step=0)
        assert pool.held() == (part.nbytes, 0)
        writer.flush()
        assert pool.held() == (0, part.nbytes)


def test_what_waits_for_the_disk_is_not_overwritten(run):
    pool, parts = _core.Pool(), [values(64, seed) for seed in range(5)]
    with run.writer(durable_seconds=None) as writer:
        for step, part in enumerate(parts):
            writer.append({"x": lent(pool, part)}, step=step)
    assert torch.equal(stored(run, "x"), torch.cat(parts))


def test_that_test_notices_memory_that_is_used_again_too_early(run):
    with broken("pool_gives_out_what_is_lent"), pytest.raises(AssertionError):
        test_what_waits_for_the_disk_is_not_overwritten(run)


def test_memory_outlives_its_pool_and_its_writer(run):
    pool = _core.Pool()
    memory = pool.take(4096)
    tensor = torch.frombuffer(memory, dtype=torch.uint8).fill_(7)
    del pool, memory
    assert (tensor == 7).all()


def test_a_pool_keeps_no_more_than_was_in_use_at_a_time():
    pool = _core.Pool()
    first, second = pool.take(1000), pool.take(3000)
    del first, second
    assert pool.held() == (0, 4000)
    small = pool.take(900)
    assert pool.held() == (1000, 3000)
    large = pool.take(3500)
    assert pool.held() == (4500, 0)
    del small, large
    assert pool.held() == (0, 4500)


def test_a_pool_gives_no_empty_memory():
    with pytest.raises(ValueError, match="no bytes"):
        _core.Pool().take(0)


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_drops_memory_without_its_pool():
    pool = _core.Pool()
    memory = pool.take(4096)
    child = os.fork()
    if child == 0:
        del memory
        os._exit(0 if pool.held() == (4096, 0) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    del memory
    assert pool.held() == (0, 4096)
