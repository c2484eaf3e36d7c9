"""The launches of sums for any two of many kernels, and of their gradients, that are compiled ahead of time.

The product of 32 layers with each other is too small for the newest matrix instructions: those stand beside older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from lamina_kernels.gram import RBF, Kernel, Laplace, Linear
from lamina_kernels.gram.dependence import backward_launch
from lamina_kernels.gram.dependence.blocked import Found, Wanted, shapes
from lamina_kernels.gram.dependence.launch import plan
from lamina_kernels.gram.dependence.layers import gather
from lamina_kernels.tiles.launch import Launch
from lamina_kernels.tiles.rows import ceil_div
from tests.kernels.aot.loops import Nest

# Roots run on the older matrix instruction of Blackwell.
OTHERWISE = ("fp32 d64 linear laplace",)


def launch(
    target: str,
    width: int,
    kernels: Sequence[Kernel],
    *,
    dtype: torch.dtype = torch.bfloat16,
    groups: torch.Tensor | None = None,
    gradients: bool = False,
) -> Launch:
    """Return the launch over 1024 rows that nobody ever computes with, or that of their gradients."""
    rows = {str(number): torch.zeros(1024, width, dtype=dtype) for number in range(len(kernels))}
    layers = gather("", rows, kernels, left=len(rows), own=True, groups=groups, biased=False, precision=None)
    centers = torch.zeros(len(layers), 1024)
    if gradients:
        given = Found(*(torch.zeros(shape, dtype=torch.float64) for shape in shapes(layers)))
        wanted = [True] * len(layers)
        return backward_launch.plan(layers, centers, given, Wanted(wanted, wanted), target)[0]
    return plan(layers, centers, target)[0]


def launches() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    """Name the launches; the second value says whether `make test` compiles it."""
    many = [RBF(1.0)] * 32
    yield "bf16 d768 rbf 32 layers", True, partial(launch, width=768, kernels=many)
    yield "bf16 d64 rbf 32 layers", False, partial(launch, width=64, kernels=many)
    groups = (torch.arange(1024) ** 2 // 8192) % 100
    yield "bf16 d64 rbf 32 layers groups", False, partial(launch, width=64, kernels=many, groups=groups)
    yield "fp32 d64 rbf 8 layers", False, partial(launch, width=64, kernels=many[:8], dtype=torch.float32)
    mixed = [Linear(), Laplace(1.0)]
    yield "fp32 d64 linear laplace", False, partial(launch, width=64, kernels=mixed, dtype=torch.float32)


def gradients() -> Iterable[tuple[str, bool, Callable[[str], Launch]]]:
    """Name the launches of gradients, likewise."""
    of, two, single = partial(launch, gradients=True), [RBF(1.0)] * 2, torch.float32
    yield "bf16 d64 rbf 2 layers", True, partial(of, width=64, kernels=two)
    groups = (torch.arange(1024) ** 2 // 8192) % 100
    yield "bf16 d64 rbf 2 layers groups", False, partial(of, width=64, kernels=two, groups=groups)
    many = [RBF(1.0)] * 32
    yield "bf16 d64 rbf 32 layers", False, partial(of, width=64, kernels=many)
    yield "bf16 d768 rbf 32 layers", False, partial(of, width=768, kernels=many)
    yield "fp32 d64 rbf 2 layers", False, partial(of, width=64, kernels=two, dtype=single)
    mixed = [Linear(), Laplace(1.0)]
    yield "fp32 d64 linear laplace", False, partial(of, width=64, kernels=mixed, dtype=single)
    norm = [Laplace(1.0, norm=1), RBF(1.0)]
    yield "bf16 d64 norm 1 rbf", False, partial(of, width=64, kernels=norm)


def of_sums(arguments: Mapping[str, Any]) -> Nest:
    """Return the loops of a program of sums: rows, columns, kernels; and layers by layers by places of the tile."""
    steps = ceil_div(arguments["layers"], arguments["LAYERS"])
    places = Nest(arguments["ROWS"] * arguments["COLUMNS"] // arguments["CHUNK"])
    multiply = Nest(steps, (Nest((steps + 1) / 2, (places,)),))
    times = 1 if arguments["ids"] is None else 4
    return Nest(1, (Nest(1, (*_of_kinds(arguments, _tile), *[multiply] * times)),))


def of_gradients(arguments: Mapping[str, Any]) -> Nest:
    """Return those of gradients: items, spans, of these tiles of all kernels, and what pulls each."""
    tiles = Nest(arguments["SPAN"], _of_kinds(arguments, _tile))
    return Nest(1, (Nest(1, (tiles, *_of_kinds(arguments, partial(_pull, arguments)))),))


def _of_kinds(arguments: Mapping[str, Any], loops: Callable[[str, int], tuple[Nest, ...]]) -> tuple[Nest, ...]:
    """Return the loops of each kind's members, by the code and the width of its base; one member needs no loop."""
    found: list[Nest] = []
    for kind, code in zip(arguments["kinds"], arguments["BASES"].split(";"), strict=True):
        inside = loops(code, int(kind.spans[0, 0, 1]))
        found += [Nest(kind.members, inside)] if kind.members > 1 else inside
    return tuple(found)


def _tile(code: str, width: int) -> tuple[Nest, ...]:
    """Return the loops that make a tile: over chunks of the rows, or dimensions; of roots also one of near rows."""
    kind, _, chunk, _ = code.split(":")
    if kind == "norm":
        return (Nest(width),)
    return (Nest(ceil_div(width, int(chunk))), *[Nest(1)] * (kind == "root"))


def _pull(arguments: Mapping[str, Any], code: str, width: int) -> tuple[Nest, ...]:
    """Return the loops that pull the rows of a base: tiles, made anew and mixed, and columns, of these tiles again."""
    span, mixed = arguments["SPAN"], Nest(arguments["layers"])
    if code.startswith("norm"):
        return (Nest(span, (*_tile(code, width), mixed, Nest(width))),)
    again = (Nest(span),) if span > 1 else ()
    return (Nest(span, (*_tile(code, width), mixed)), Nest(ceil_div(width, arguments["WIDTH"]), again))
