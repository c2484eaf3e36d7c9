"""The launches of attention's gradients and second pass that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.attention import backward_launch, mass_launch
from lamina_kernels.attention.backward_keys import keys_kernel
from lamina_kernels.attention.backward_queries import queries_kernel
from lamina_kernels.attention.launch import Launch
from lamina_kernels.attention.mass import received_kernel
from lamina_kernels.attention.problem import Problem, Sums, Wanted

N = 4096


def problem(width: int, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Problem:
    """Return a problem of 4096 rows that nobody ever computes with."""
    q, k, v = (torch.zeros(1, 2, N, width, dtype=dtype) for _ in range(3))
    return Problem(q, k, v, scale=width**-0.5, tier=1, max_seqlen_q=N, max_seqlen_k=N, **options)


def gradients(
    target: str, width: int, side: str, *, entropy: bool = True, every: bool = False, **options: Any
) -> Launch:
    """Return the launch of the gradients of "queries" or "keys".

    They are those from gradients of the output and, or not, of the entropy, or of every statistic.
    """
    p, row = problem(width, **options), torch.zeros(1, 2, N)
    known = Sums(p.q, lse=row, max=row, entropy=row, expected_score=row)
    given = Sums(p.q, entropy=row if entropy else None)
    if every:
        distance, columns, argmax = torch.zeros(4, 1, 2, N), torch.zeros(1, 2, N, 4), torch.zeros(1, 2, N).long()
        p = replace(p, tier=3, columns=torch.zeros(1, 1, N, 4))
        known = known._replace(argmax=argmax, sum_p2=row, distance=distance, columns=columns)
        given = known._replace(argmax=None)
    shared = backward_launch.shared_arguments(p, known, given, row, target)
    plan = backward_launch.queries_plan if side == "queries" else backward_launch.keys_plan
    return plan(p, shared, target)


def received(target: str, width: int, **options: Any) -> Launch:
    """Return the launch of what keys receive."""
    p = problem(width, **options)
    shared = mass_launch.arguments(p, torch.zeros(1, 2, N), target)
    return mass_launch.received_plan(p, shared, Wanted(received=True), target)


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""
    yield (
        "bf16 d128 queries entropy causal",
        False,
        queries_kernel,
        partial(gradients, width=128, side="queries", causal=True),
    )
    yield "bf16 d64 queries entropy", True, queries_kernel, partial(gradients, width=64, side="queries")
    yield "bf16 d128 received", True, received_kernel, partial(received, width=128)
    yield "bf16 d128 keys entropy", False, keys_kernel, partial(gradients, width=128, side="keys")
    for side, kernel in (("queries", queries_kernel), ("keys", keys_kernel)):
        yield f"bf16 d256 {side} entropy", False, kernel, partial(gradients, width=256, side=side)
        for width in (64, 128):
            yield f"bf16 d{width} {side} every", False, kernel, partial(gradients, width=width, side=side, every=True)
