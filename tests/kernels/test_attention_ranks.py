"""Attention over keys that two processes share, by gloo."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from lamina_kernels.attention import attend, gather_parts, merge
from tests.faults import broken
from tests.kernels.attention_checks import FIRST, close
from tests.kernels.hsic_checks import normal

RANKS = 2
# Uneven, as rings of long sequences are not.
CUTS = [slice(0, 12), slice(12, 20)]
ASKED: dict[str, Any] = {"statistics": FIRST, "topk": 2, "align": "top-left"}


def rows() -> tuple[torch.Tensor, ...]:
    """Return queries, keys, values, and a set of the keys."""
    q, k, v = (normal(1, 2, n, 16, seed=n + width) for n, width in ((6, 0), (20, 0), (20, 1)))
    return q.requires_grad_(), k, v, torch.arange(20) % 3 == 0


def loss(found: Any) -> torch.Tensor:
    return found.out.square().sum() + found.stats.entropy.sum() + found.stats.max.sum()


def merged_of_rank(rank: int, folder: Path, fault: str | None) -> None:
    """Attend to this rank's keys, merge, and compare; the gradients of the ranks add up to the whole's."""
    torch.distributed.init_process_group(
        "gloo", init_method=(folder / "meet").as_uri(), rank=rank, world_size=RANKS, timeout=timedelta(seconds=120)
    )
    try:
        q, k, v, hit = rows()
        own = CUTS[rank]
        part = attend(q, k[:, :, own], v[:, :, own], targets={"set": hit[own]}, **ASKED)
        with nullcontext() if fault is None else broken(fault):
            parts = gather_parts(part)
        got = merge(parts, first_keys=[cut.start for cut in CUTS])
        wanted = attend(q, k, v, targets={"set": hit}, **ASKED)
        close(got, wanted)
        assert got.out.requires_grad
        (gradient,) = torch.autograd.grad(loss(got), q)
        torch.distributed.all_reduce(gradient)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss(wanted), q)[0], rtol=1e-4, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes() -> Iterator[Executor]:
    with ProcessPoolExecutor(RANKS, multiprocessing.get_context("forkserver")) as pool:
        yield pool


def together(processes: Executor, folder: Path, fault: str | None = None) -> None:
    ranks = [processes.submit(merged_of_rank, rank, folder, fault) for rank in range(RANKS)]
    for rank in ranks:
        rank.result(150)


def test_parts_of_two_ranks_merge_to_the_whole(processes, tmp_path):
    together(processes, tmp_path)


@pytest.mark.parametrize("fault", ["attention_ranks_keep_their_own_parts", "attention_ranks_pass_no_gradient"])
def test_a_fault_is_noticed(processes, tmp_path, fault):
    with pytest.raises(AssertionError):
        together(processes, tmp_path, fault)
