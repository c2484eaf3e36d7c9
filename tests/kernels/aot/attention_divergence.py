"""The launches of the divergence of two attentions that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.attention import divergence_launch
from lamina_kernels.attention.divergence_backward import divergence_keys_kernel, divergence_queries_kernel
from lamina_kernels.attention.divergence_forward import divergence_kernel
from lamina_kernels.attention.launch import Launch
from lamina_kernels.attention.problem import Divergences, Problem

N = 4096


def problem(width: int, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Problem:
    """Return a problem of 4096 rows that nobody ever computes with."""
    q, k = (torch.zeros(1, 2, N, width, dtype=dtype) for _ in range(2))
    return Problem(q, k, k, scale=width**-0.5, max_seqlen_q=N, max_seqlen_k=N, **options)


def forward(target: str, kind: str, width: int, other_width: int, *, known: bool = False, **options: Any) -> Launch:
    """Return the launch of the divergence, whose log-sum-exps may be known."""
    both = problem(width, **options), problem(other_width, **options)
    row = torch.zeros(1, 2, N)
    return divergence_launch.forward_plan(*both, kind, target, (row, row.clone()) if known else None)


def gradients(target: str, kind: str, width: int, side: str) -> Launch:
    """Return the launch of the gradients by the "queries" or the "keys" of the first model."""
    own, other = problem(width), problem(width)
    row = torch.zeros(1, 2, N)
    found = Divergences(row, row, row, row, row)
    shared = divergence_launch.backward_arguments(own, other, kind, True, found, row, target)
    plan = divergence_launch.queries_plan if side == "queries" else divergence_launch.keys_plan
    return plan(own, shared, target)


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""

    def of(kind: str, width: int, other_width: int, **options: Any) -> Callable[[str], Launch]:
        return partial(forward, kind=kind, width=width, other_width=other_width, **options)

    yield "bf16 d128 kl", True, divergence_kernel, of("kl", 128, 128)
    yield "bf16 d128 js", False, divergence_kernel, of("js", 128, 128)
    yield "bf16 d128 tv", False, divergence_kernel, of("tv", 128, 128)
    yield "bf16 d128 kl known", False, divergence_kernel, of("kl", 128, 128, known=True)
    yield "bf16 d128 js known", False, divergence_kernel, of("js", 128, 128, known=True)
    yield "bf16 d128 tv known", False, divergence_kernel, of("tv", 128, 128, known=True)
    yield "bf16 d256 kl causal", False, divergence_kernel, of("kl", 256, 256, causal=True)
    yield "fp32 d64 kl", False, divergence_kernel, of("kl", 64, 64, dtype=torch.float32)
    for kind, width, side, main in (
        ("kl", 128, "queries", False),
        ("kl", 128, "keys", False),
        ("js", 128, "keys", False),
        ("js", 64, "queries", True),
    ):
        kernel = divergence_queries_kernel if side == "queries" else divergence_keys_kernel
        yield f"bf16 d{width} {kind} {side}", main, kernel, partial(gradients, kind=kind, width=width, side=side)
