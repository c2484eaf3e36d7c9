"""The launches of losses, and of what compares two samples, that are compiled ahead of time: sums of other kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.gram import RBF, Kernel, Polynomial
from lamina_kernels.gram.contrastive import Softplus
from lamina_kernels.gram.operands import prepare
from lamina_kernels.gram.pairs import build
from lamina_kernels.gram.prototypes import LogDistance
from lamina_kernels.gram.sums import launch
from lamina_kernels.gram.sums.forward import sums_kernel
from lamina_kernels.gram.sums.softmax import softmax_kernel
from lamina_kernels.tiles.launch import Launch

N = 8192
# Roots run on the older matrix instruction of Blackwell.
OTHERWISE = ("bf16 d768 harmonic",)


def row_sums(target: str, width: int, kernel: Kernel) -> Launch:
    """Return the launch of sums over rows that nobody ever computes with; unit rows are float32 whatever they were."""
    x = torch.zeros(N, width)
    p = build("losses", x, x.clone(), kernel)
    return launch.sums_plan(p, prepare(p, launch.products_of(p, target)), torch.ones(N, 1), None, target)


def logsumexp(target: str, width: int, kernel: Kernel, dtype: torch.dtype) -> Launch:
    """Return the launch of a log-sum-exp, likewise."""
    x = torch.zeros(N, width, dtype=dtype)
    p = build("losses", x, x.clone(), kernel)
    return launch.softmax_plan(p, prepare(p, launch.products_of(p, target)), torch.zeros(N, 0), None, target)


def mmd(target: str, width: int, permutations: int) -> Launch:
    """Return the launch of all that `mmd` sums, each row a group of its own."""
    p = build("mmd", torch.zeros(N, width, dtype=torch.bfloat16), None, RBF(1.0), torch.arange(N))
    return launch.sums_plan(p, prepare(p, "half"), torch.zeros(N, permutations + 2), None, target)


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""
    yield "bf16 d64 mmd 99 permutations", False, sums_kernel, partial(mmd, width=64, permutations=99)
    softplus = Softplus(10.0, -10.0)
    yield "fp32 d512 sigmoid", False, sums_kernel, partial(row_sums, width=512, kernel=softplus)
    line = Polynomial(1, gamma=10.0, coef0=0.0)
    yield "fp32 d512 infonce", False, softmax_kernel, partial(logsumexp, width=512, kernel=line, dtype=torch.float32)
    far = partial(logsumexp, width=768, kernel=LogDistance(28.0), dtype=torch.bfloat16)
    yield "bf16 d768 harmonic", False, softmax_kernel, far
