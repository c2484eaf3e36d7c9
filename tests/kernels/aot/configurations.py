"""What is compiled ahead of time: at most 15 configurations a family, each for 4 targets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from triton.runtime.jit import JITFunction

from lamina_kernels.attention.forward import attention_forward_kernel
from lamina_kernels.attention.top import attention_top_kernel
from lamina_kernels.gram import RBF, Linear, distances
from lamina_kernels.gram.counting import launch as counts
from lamina_kernels.gram.counting.forward import counts_kernel
from lamina_kernels.gram.dependence.backward import layers_gradients_kernel
from lamina_kernels.gram.dependence.forward import layers_kernel
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.paired import launch, problem
from lamina_kernels.gram.paired.forward import hsic_sums_kernel
from lamina_kernels.gram.selection import launch as nearest
from lamina_kernels.gram.selection.forward import nearest_groups_kernel
from lamina_kernels.gram.sums.sides import sides_kernel
from lamina_kernels.tiles.launch import Launch
from lamina_kernels.tiles.rows import ceil_div
from tests.kernels.aot import (
    attention,
    attention_backward,
    attention_divergence,
    gram_sums,
    layers,
    losses,
    sparse_decode,
    sparse_encode,
)
from tests.kernels.aot.loops import Nest
from tests.kernels.aot.machine_code import ADDS, LOADS, MATRIX

LINEAR, GAUSSIAN = Linear(), RBF(1.0)


def once(arguments: Mapping[str, Any]) -> int:
    """Count loops inside once."""
    return 1


def chunks(arguments: Mapping[str, Any]) -> int:
    """Return in how many turns the chunks of rows are multiplied."""
    turn = arguments["CHUNK"] * max(1, arguments.get("TOGETHER", 1))
    return 1 if arguments.get("WHOLE") else ceil_div(arguments["width"], turn)


class Configuration(NamedTuple):
    """One way to launch a kernel.

    Attributes:
        name: How the table calls it.
        kernel: The kernel.
        plan: Returns the launch for a target, as the op itself would make it: with `arguments` and `options`.
        main: Whether `make test` compiles it; `make test-aot` compiles all.
        scores: The names of the arguments whose product is the number of scores of a tile.
        matrix: Whether it must run on matrix units; NVIDIA's do not multiply float32 without rounding.
        work: The instructions whose loop matters.
        turns: How often its innermost loops turn, or what nest they are, by the arguments of the launch.
    """

    name: str
    kernel: JITFunction[Any]
    plan: Callable[[str], Any]
    main: bool
    scores: tuple[str, ...]
    matrix: bool
    work: re.Pattern[str] = MATRIX
    turns: Callable[[Mapping[str, Any]], int | Nest] = once


def hsic_launch(
    target: str,
    dtype: torch.dtype,
    width: int,
    kernels: tuple[Kernel, Kernel] = (GAUSSIAN, GAUSSIAN),
    *,
    width_y: int | None = None,
    diagonal: bool = True,
    group: int | None = None,
    precision: str | None = None,
) -> Launch:
    """Return the launch of `hsic_sums` over 4096 rows that nobody ever computes with."""
    n = 4096
    x, y = torch.zeros(n, width, dtype=dtype), torch.zeros(n, width_y or width, dtype=dtype)
    x_other, y_other = (None, None) if diagonal else (x.clone(), y.clone())
    groups = None if group is None else torch.arange(n) // group
    ids = (groups, None) if diagonal else (None, groups)
    return launch.plan(problem.build(x, y, x_other, y_other, *kernels, *ids, precision), target)


def _gram() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    half, single = torch.bfloat16, torch.float32
    yield "bf16 d64 rbf", True, partial(hsic_launch, dtype=half, width=64)
    yield "bf16 d128 rbf", False, partial(hsic_launch, dtype=half, width=128)
    yield "bf16 d768 rbf", False, partial(hsic_launch, dtype=half, width=768)
    yield "bf16 d64 linear", False, partial(hsic_launch, dtype=half, width=64, kernels=(LINEAR, LINEAR))
    yield (
        "bf16 d768 linear off",
        False,
        partial(hsic_launch, dtype=half, width=768, kernels=(LINEAR, LINEAR), diagonal=False),
    )
    yield (
        "fp16 d64 d768 linear-rbf",
        False,
        partial(hsic_launch, dtype=torch.float16, width=64, width_y=768, kernels=(LINEAR, GAUSSIAN)),
    )
    yield "bf16 d64 rbf groups", False, partial(hsic_launch, dtype=half, width=64, group=128)
    yield "bf16 d768 rbf small groups off", True, partial(hsic_launch, dtype=half, width=768, group=16, diagonal=False)
    yield "fp32 d64 rbf", True, partial(hsic_launch, dtype=single, width=64)
    yield "fp32 d768 rbf", True, partial(hsic_launch, dtype=single, width=768)
    yield "fp32 d768 linear", False, partial(hsic_launch, dtype=single, width=768, kernels=(LINEAR, LINEAR))
    yield "fp32 d64 rbf groups", False, partial(hsic_launch, dtype=single, width=64, group=128)
    yield "fp32 d64 rbf tf32", False, partial(hsic_launch, dtype=single, width=64, precision="tf32")
    yield "fp32 d768 rbf tf32", False, partial(hsic_launch, dtype=single, width=768, precision="tf32")
    yield "fp32 d768 rbf ieee", False, partial(hsic_launch, dtype=single, width=768, precision="ieee")


def nearest_launch(
    target: str, dtype: torch.dtype, width: int, k: int, *, groups: bool = False, precision: str | None = None
) -> Launch:
    """Return the launch of `nearest` over 4096 rows that nobody ever computes with."""
    x = torch.zeros(4096, width, dtype=dtype)
    exclude = torch.arange(4096) // 16 if groups else "self"
    p = distances.pairs("nearest", x, None, "squared", exclude, precision)
    products = nearest.products_of(p, target)
    return nearest.plan(p, nearest.prepare(p, products), products, k, target)


def _nearest() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    half, single = torch.bfloat16, torch.float32
    yield "bf16 d128 k16", True, partial(nearest_launch, dtype=half, width=128, k=16)
    yield "bf16 d512 k1", False, partial(nearest_launch, dtype=half, width=512, k=1)
    yield "bf16 d64 k16 groups", False, partial(nearest_launch, dtype=half, width=64, k=16, groups=True)
    yield "bf16 d128 k48", False, partial(nearest_launch, dtype=half, width=128, k=48)
    yield "fp32 d64 k16", True, partial(nearest_launch, dtype=single, width=64, k=16)
    yield "fp32 d128 k16", False, partial(nearest_launch, dtype=single, width=128, k=16)
    yield "fp32 d768 k1", False, partial(nearest_launch, dtype=single, width=768, k=1)
    yield "fp32 d64 k16 tf32", False, partial(nearest_launch, dtype=single, width=64, k=16, precision="tf32")


def counts_launch(
    target: str, dtype: torch.dtype, width: int, edges: int = 0, *, groups: bool = False, precision: str | None = None
) -> Launch:
    """Return the launch of `count`, or of `distance_histogram` with edges, over 4096 rows."""
    x = torch.zeros(4096, width, dtype=dtype)
    exclude = torch.arange(4096) // 16 if groups else "self"
    limits = torch.zeros(edges or 4096, dtype=torch.float64)
    return counts.plan(distances.pairs("count", x, None, "squared", exclude, precision), limits, edges, target)


def _counts() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    half, single = torch.bfloat16, torch.float32
    yield "bf16 d128", True, partial(counts_launch, dtype=half, width=128)
    yield "bf16 d64 groups 20 edges", False, partial(counts_launch, dtype=half, width=64, edges=20, groups=True)
    yield "fp32 d64", False, partial(counts_launch, dtype=single, width=64)
    yield "fp32 d768 tf32", False, partial(counts_launch, dtype=single, width=768, precision="tf32")


FAMILIES = {
    "sparse_decode": {
        name: Configuration(name, kernel, plan, main, ("TOGETHER", "COLUMNS"), matrix=False, work=LOADS)
        for name, main, kernel, plan in sparse_decode.launches()
    },
    "layers": {
        name: Configuration(
            name,
            layers_kernel,
            plan,
            main,
            ("ROWS", "COLUMNS", "layers"),
            matrix=name not in layers.OTHERWISE,
            turns=layers.of_sums,
        )
        for name, main, plan in layers.launches()
    },
    "layers_gradients": {
        name: Configuration(
            name,
            layers_gradients_kernel,
            plan,
            main,
            ("ROWS", "COLUMNS", "layers", "SPAN"),
            matrix=name not in layers.OTHERWISE,
            turns=layers.of_gradients,
        )
        for name, main, plan in layers.gradients()
    },
    "sparse_encode": {
        name: Configuration(name, kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True, turns=chunks)
        for name, main, kernel, plan in sparse_encode.launches()
    },
    "pointwise": {
        name: Configuration(name, kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True)
        for name, main, kernel, plan in gram_sums.own_launches()
    },
    "counts": {
        name: Configuration(name, counts_kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True)
        for name, main, plan in _counts()
    },
    "nearest": {
        name: Configuration(name, nearest_groups_kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True, turns=chunks)
        for name, main, plan in _nearest()
    },
    "gram": {
        name: Configuration(name, hsic_sums_kernel, plan, main, ("ROWS", "COLUMNS"), matrix="ieee" not in name)
        for name, main, plan in _gram()
    },
    "gram_sums": {
        name: Configuration(
            name,
            kernel,
            plan,
            main,
            ("ROWS", "COLUMNS"),
            matrix=name not in gram_sums.OTHERWISE,
            work=ADDS if name == gram_sums.NORM else MATRIX,
            turns=gram_sums.turns,
        )
        for name, main, kernel, plan in gram_sums.launches()
    },
    "losses": {
        name: Configuration(
            name,
            kernel,
            plan,
            main,
            ("ROWS", "COLUMNS", "stretch") if kernel is sides_kernel else ("ROWS", "COLUMNS"),
            matrix=name not in losses.OTHERWISE,
            turns=losses.turns,
        )
        for name, main, kernel, plan in losses.launches()
    },
    "gram_gradients": {
        name: Configuration(
            name,
            kernel,
            plan,
            main,
            ("ROWS", "COLUMNS"),
            matrix=name not in gram_sums.OTHERWISE,
            work=ADDS if name == gram_sums.NORM_GRADIENTS else MATRIX,
        )
        for name, main, kernel, plan in gram_sums.gradients()
    },
    "attention_backward": {
        name: Configuration(name, kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True)
        for name, main, kernel, plan in attention_backward.launches()
    },
    "attention_divergence": {
        name: Configuration(name, kernel, plan, main, ("ROWS", "COLUMNS"), matrix=True)
        for name, main, kernel, plan in attention_divergence.launches()
    },
    "attention": {
        name: Configuration(
            name,
            attention_top_kernel if name.endswith("top") else attention_forward_kernel,
            plan,
            main,
            ("ROWS", "COLUMNS"),
            matrix=True,
        )
        for name, main, plan in attention.forwards()
    },
}
