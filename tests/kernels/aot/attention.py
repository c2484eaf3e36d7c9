"""The launches of attention that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from lamina_kernels.attention import launch
from lamina_kernels.attention.masking import documents
from lamina_kernels.attention.problem import Problem

N = 4096
DOCUMENTS = torch.arange(N) // 200


def problem(
    dtype: torch.dtype, width: int, *, tier: int = 1, columns: int = 0, values: bool = True, **options: Any
) -> Problem:
    """Return a problem of 4096 rows that nobody ever computes with."""
    q, k, v = (torch.zeros(1, 2, N, size, dtype=dtype) for size in (width, width, width if values else 0))
    functions = torch.zeros(1, 1, N, columns) if columns else None
    sizes: dict[str, Any] = {"max_seqlen_q": N, "max_seqlen_k": N}
    return Problem(q, k, v, scale=width**-0.5, tier=tier, columns=functions, **sizes, **options)


def forward(target: str, *arguments: Any, **options: Any) -> launch.Launch:
    """Return the launch of the forward pass."""
    return launch.forward_plan(problem(*arguments, **options), target)


def top(target: str, *arguments: Any, **options: Any) -> launch.Launch:
    """Return the launch of the search for the largest scores."""
    return launch.top_plan(problem(*arguments, **options), target)


def forwards() -> Iterable[tuple[str, bool, Callable[[str], launch.Launch]]]:
    """Name the launches of the forward pass; the second value says whether `make test` compiles it."""
    half = torch.bfloat16

    def of(*arguments: Any, **options: Any) -> Callable[[str], launch.Launch]:
        return lambda target: forward(target, *arguments, **options)

    yield "bf16 d128", False, of(half, 128, tier=0)
    yield "bf16 d128 entropy", True, of(half, 128)
    yield "bf16 d128 entropy without values", False, of(half, 128, values=False)
    yield "bf16 d64", False, of(half, 64, tier=0)
    yield "bf16 d64 entropy", False, of(half, 64)
    yield "bf16 d64 distance", False, of(half, 64, tier=2)
    yield "bf16 d64 distance causal", False, of(half, 64, tier=2, causal=True)
    yield "bf16 d128 distance", False, of(half, 128, tier=2)
    yield "bf16 d128 distance causal", False, of(half, 128, tier=2, causal=True)
    yield "bf16 d256 entropy causal", False, of(half, 256, causal=True)
    yield "bf16 d128 entropy documents", False, of(half, 128, mask=documents(DOCUMENTS, DOCUMENTS))
    yield "fp16 d128 columns causal", False, of(torch.float16, 128, tier=3, columns=4, causal=True)
    yield "fp32 d64 entropy", False, of(torch.float32, 64)
    yield "fp32 d128 entropy tf32", False, of(torch.float32, 128, precision="tf32")
    yield "bf16 d128 top", False, partial(top, dtype=half, width=128, topk=8)
