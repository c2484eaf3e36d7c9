"""The launches of losses, and of what compares two samples, that are compiled ahead of time: sums of other kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.gram import RBF, Kernel, Linear
from lamina_kernels.gram.contrastive import Logit, Softplus
from lamina_kernels.gram.operands import prepare
from lamina_kernels.gram.pairs import Pairs, build
from lamina_kernels.gram.prototypes import LogDistance
from lamina_kernels.gram.sums import launch
from lamina_kernels.gram.sums.forward import sums_kernel
from lamina_kernels.gram.sums.sides import sides_kernel
from lamina_kernels.gram.sums.softmax import softmax_kernel
from lamina_kernels.tiles.launch import Launch
from tests.kernels.aot import gram_sums
from tests.kernels.aot.loops import Nest

N = 8192
# Roots run on the older matrix instruction of Blackwell.
OTHERWISE = ("bf16 d768 harmonic",)


def pairs(width: int, kernel: Kernel, precision: str | None) -> Pairs:
    """Return pairs of rows that nobody ever computes with: float32, whatever they hold."""
    x = torch.zeros(N, width)
    return replace(build("losses", x, x.clone(), kernel), precision=precision)


def row_sums(target: str, width: int, kernel: Kernel, precision: str | None = None) -> Launch:
    """Return the launch of sums over rows."""
    p = pairs(width, kernel, precision)
    return launch.sums_plan(p, prepare(p, launch.products_of(p, target)), torch.ones(N, 1), None, target)


def sides(target: str, width: int, kernel: Kernel, precision: str | None = None) -> Launch:
    """Return the launch of log-sum-exps along both sides."""
    p = pairs(width, kernel, precision)
    return launch.sides_plan(p, prepare(p, launch.products_of(p, target)), target)


def logsumexp(target: str, width: int, kernel: Kernel, dtype: torch.dtype) -> Launch:
    """Return the launch of a log-sum-exp, likewise."""
    x = torch.zeros(N, width, dtype=dtype)
    p = build("losses", x, x.clone(), kernel)
    return launch.softmax_plan(p, prepare(p, launch.products_of(p, target)), torch.zeros(N, 0), None, target)


def mmd(target: str, width: int, permutations: int) -> Launch:
    """Return the launch of all that `mmd` sums, each row a group of its own."""
    p = build("mmd", torch.zeros(N, width, dtype=torch.bfloat16), None, RBF(1.0), torch.arange(N))
    return launch.sums_plan(p, prepare(p, "half"), torch.zeros(N, permutations + 2), None, target)


def turns(arguments: Mapping[str, Any]) -> int | Nest:
    """Return how often loops turn: one of blocks of rows is around that of tiles where columns are summed too."""
    chunks = gram_sums.turns(arguments)
    if "stretch" not in arguments:
        return chunks
    products = (Nest(chunks),) if chunks > 1 else ()
    return Nest(1, (Nest(arguments["stretch"], products), Nest(0, products)))


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""
    yield "bf16 d64 mmd 99 permutations", False, sums_kernel, partial(mmd, width=64, permutations=99)
    softplus, logit = Softplus(10.0, -10.0), Logit(10.0)
    yield "fp32 d512 sigmoid", False, sums_kernel, partial(row_sums, width=512, kernel=softplus)
    yield "bf16 d512 sigmoid", False, sums_kernel, partial(row_sums, width=512, kernel=softplus, precision="bf16")
    yield "fp32 d512 infonce", False, sides_kernel, partial(sides, width=512, kernel=logit)
    yield "bf16 d512 infonce", False, sides_kernel, partial(sides, width=512, kernel=logit, precision="bf16")
    one_side = partial(logsumexp, width=512, kernel=Linear(), dtype=torch.bfloat16)
    yield "bf16 d512 log-sum-exp", False, softmax_kernel, one_side
    far = partial(logsumexp, width=768, kernel=LogDistance(28.0), dtype=torch.bfloat16)
    yield "bf16 d768 harmonic", False, softmax_kernel, far
