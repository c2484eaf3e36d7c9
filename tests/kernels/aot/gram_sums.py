"""The launches of sums over pairs of rows that are compiled ahead of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.gram import RBF, Kernel, Laplace, Linear, Matern, SquaredDistance
from lamina_kernels.gram.operands import prepare
from lamina_kernels.gram.pairs import build
from lamina_kernels.gram.sums import backward_launch, launch
from lamina_kernels.gram.sums.backward import gradients_kernel
from lamina_kernels.gram.sums.backward_norm import norm_gradients_kernel
from lamina_kernels.gram.sums.backward_parameters import parameters_kernel
from lamina_kernels.gram.sums.backward_wide import wide_gradients_kernel
from lamina_kernels.gram.sums.forward import sums_kernel
from lamina_kernels.gram.sums.launch import Terms
from lamina_kernels.gram.sums.softmax import softmax_kernel
from lamina_kernels.tiles.launch import Launch
from lamina_kernels.tiles.rows import ceil_div
from tests.kernels.own_functions import TANIMOTO

N = 8192
GAUSSIAN = RBF(1.0)

NORM, NORM_GRADIENTS = "fp32 d64 norm 1 row sums", "fp32 d64 norm 1"
# A sum of absolute differences is no product; and roots run on the older matrix instruction of Blackwell.
OTHERWISE = (
    NORM,
    NORM_GRADIENTS,
    "bf16 d64 laplace",
    "bf16 d64 sum of products",
    "bf16 d64 laplace softmax",
    "bf16 d384 matern",
)


def sums(
    target: str,
    width: int,
    kernel: Kernel = GAUSSIAN,
    *,
    values: int = 16,
    dtype: torch.dtype = torch.bfloat16,
    which: str = "product",
    same: bool = False,
    precision: str | None = None,
) -> Launch:
    """Return the launch of "product" or "softmax", or that of a product's or a softmax's "gradients" by the rows of x.

    They come with those of the parameters; "gradients alone" are without, and "parameters alone" without rows.

    Nobody ever computes with its 8192 rows.
    """
    x, v = torch.zeros(N, width, dtype=dtype), torch.zeros(N, values, dtype=dtype if values > 1 else torch.float32)
    p = build("sums", x, None if same else x.clone(), kernel, "self" if same else None, precision)
    operands = prepare(p, launch.products_of(p, target))
    if which == "product":
        return launch.sums_plan(p, operands, v, None, target)
    if which == "softmax":
        return launch.softmax_plan(p, operands, v, None, target)
    terms = Terms(torch.zeros(N), None) if "softmax" in which else None
    if which == "parameters alone":
        return backward_launch.parameters_plan(p, operands, v, terms, v.float(), target)
    parameters = which != "gradients alone"
    return backward_launch.gradients_plan(p, operands, v, terms, v.float(), 0, target, parameters=parameters)[1]


def own_launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches with a function of a user's own, likewise."""
    yield "bf16 d64 own", True, sums_kernel, partial(sums, width=64, kernel=TANIMOTO)
    tree = GAUSSIAN * TANIMOTO
    yield (
        "fp32 d64 own times rbf softmax",
        False,
        softmax_kernel,
        partial(sums, width=64, kernel=tree, dtype=torch.float32, which="softmax"),
    )


def launches() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches and their kernels; the second value says whether `make test` compiles it."""
    single = torch.float32
    yield "bf16 d64 rbf", True, sums_kernel, partial(sums, width=64)
    yield "bf16 d64 rbf row sums", False, sums_kernel, partial(sums, width=64, values=1)
    yield "bf16 d64 rbf same", False, sums_kernel, partial(sums, width=64, same=True)
    yield "bf16 d128 rbf", False, sums_kernel, partial(sums, width=128)
    yield "bf16 d512 rbf", False, sums_kernel, partial(sums, width=512)
    yield "bf16 d4096 rbf", False, sums_kernel, partial(sums, width=4096)
    yield "bf16 d64 laplace", False, sums_kernel, partial(sums, width=64, kernel=Laplace(1.0))
    tree = GAUSSIAN + Linear() * Matern(1.0)
    yield "bf16 d64 sum of products", False, sums_kernel, partial(sums, width=64, kernel=tree)
    yield "fp32 d64 rbf", False, sums_kernel, partial(sums, width=64, dtype=single)
    yield "fp32 d64 rbf bf16x3", False, sums_kernel, partial(sums, width=64, dtype=single, precision="bf16x3")
    yield "fp32 d256 rbf tf32", False, sums_kernel, partial(sums, width=256, dtype=single, precision="tf32")
    yield "fp32 d512 rbf", False, sums_kernel, partial(sums, width=512, dtype=single)
    yield "fp32 d512 rbf fp16x3", False, sums_kernel, partial(sums, width=512, dtype=single, precision="fp16x3")
    distance = SquaredDistance(1.0)
    softmax = partial(sums, width=64, kernel=distance, values=64, which="softmax")
    yield "bf16 d64 softmax v64", False, softmax_kernel, softmax
    # Columns are loaded one at a time.
    yield NORM, False, sums_kernel, partial(sums, width=64, kernel=Laplace(1.0, norm=1), values=1, dtype=single)


def gradients() -> Iterable[tuple[str, bool, JITFunction[Any], Callable[[str], Launch]]]:
    """Name the launches of gradients, likewise."""
    single, of = torch.float32, partial(sums, which="gradients")
    yield "bf16 d64 rbf", True, gradients_kernel, partial(of, width=64)
    yield "bf16 d128 rbf", False, gradients_kernel, partial(of, width=128)
    yield "bf16 d64 rbf alone", False, gradients_kernel, partial(sums, width=64, which="gradients alone")
    yield "bf16 d64 rbf parameters", False, parameters_kernel, partial(sums, width=64, which="parameters alone")
    laplace = partial(sums, width=64, kernel=Laplace(1.0), which="gradients of softmax")
    yield "bf16 d64 laplace softmax", False, gradients_kernel, laplace
    yield "fp32 d64 rbf", False, gradients_kernel, partial(of, width=64, dtype=single)
    yield "bf16 d384 rbf", True, wide_gradients_kernel, partial(of, width=384)
    yield "bf16 d384 matern", False, wide_gradients_kernel, partial(of, width=384, kernel=Matern(1.0))
    yield "fp32 d384 rbf", False, wide_gradients_kernel, partial(of, width=384, dtype=single)
    norm = partial(of, width=64, kernel=Laplace(1.0, norm=1), values=1, dtype=single)
    yield NORM_GRADIENTS, False, norm_gradients_kernel, norm


def turns(arguments: Mapping[str, Any]) -> int:
    """Return how many chunks the rows of the first base are multiplied in; differences are taken one at a time."""
    kind, _, chunk, turn = arguments["BASES"].split()[0].split(":")
    if kind == "norm":
        return arguments["bases"][0].width
    base = arguments["bases"][0]
    width = base.width if base.x_parts is None else base.part_width
    return 1 if turn == "whole" else ceil_div(width, int(chunk) * max(int(turn), 1))
