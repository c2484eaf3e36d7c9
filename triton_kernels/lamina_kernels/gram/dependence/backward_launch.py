"""How the Triton kernel of the gradients of sums for any two of many kernels is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram.dependence.backward import Made, layers_gradients_kernel
from lamina_kernels.gram.dependence.blocked import Found, Wanted
from lamina_kernels.gram.dependence.launch import shared
from lamina_kernels.gram.dependence.layers import TILE, Layers
from lamina_kernels.gram.dependence.packing import Packed, pack, room_of
from lamina_kernels.gram.kernels import across
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div

ROOMS = 264
"""Programs, each of which has a room: two for each multiprocessor of the largest GPUs."""
ITEMS = 512
"""Blocks of rows times parts of the columns, at least, where there are columns enough."""
PART = 32
"""Blocks of columns that are worth a part of their own."""
HELD = 8
"""Tiles of kernel values that a room holds, or one of each kernel."""
WIDTH = 32
"""Columns that gradients are made of at a time: twice as many spill registers."""


def gradients(layers: Layers, centers: Tensor, g: Found, wanted: Wanted) -> list[Tensor | None]:
    """Return the gradients of each kernel's rows, and behind these of its parameters, as wanted, from one launch."""
    launch, packed = plan(layers, centers, g, wanted, dispatch.target(layers.pairs[0].x))
    run(layers_gradients_kernel, launch, layers.pairs[0].x)
    rows: list[Tensor | None] = [None] * len(layers)
    parameters: list[Tensor | None] = [None] * len(layers)
    kinds = zip(packed.kinds, launch.arguments["made"], packed.bases.split(";"), strict=True)
    for (_, spans, _, first, _), made, bases in kinds:
        whole = [
            part if part is None else part.sum(0).T if _is_norm(code) else part.sum(0)
            for part, code in zip(made.rows, bases.split(), strict=True)
        ]
        # A pair of rows counts for both.
        of_leaves = made.parameters.sum(0) / 2
        for member, starts in enumerate(spans[: made.members, :, 0].tolist()):
            place, columns = packed.order[first + member], packed.columns[first + member]
            p = layers.pairs[place]
            if wanted.parameters[place]:
                parameters[place] = of_leaves[member].to(p.parameters.dtype)
            if wanted.rows[place]:
                of_rows = torch.zeros(p.x.shape, dtype=torch.float32, device=p.x.device)
                for code, part, start, (left, right) in zip(bases.split(), whole, starts, columns, strict=True):
                    assert part is not None
                    of_base = part[:, start : start + right - left]
                    if code.startswith("cosine"):
                        of_base = across(p.x[:, left:right].float(), of_base)
                    # Bases may share columns.
                    of_rows[:, left:right] += of_base
                rows[place] = of_rows.to(p.x.dtype)
    return rows + parameters


def plan(layers: Layers, centers: Tensor, g: Found, wanted: Wanted, target: str) -> tuple[Launch, Packed]:
    """Put the rows side by side, choose the grid, and allocate what the kernel writes."""
    packed = pack(layers, target, wanted.pulled)
    arguments = shared(layers, packed, centers, target)
    count, x, blocks = len(layers), layers.pairs[0].x, arguments["blocks"]
    splits = max(1, min(ceil_div(ITEMS, blocks), blocks // PART))
    programs, span = min(blocks * splits, ROOMS), max(1, HELD // count)
    dtype, _ = room_of(layers, target)
    arguments |= {
        "made": tuple(
            _made(kind, bases, packed.order, wanted, layers.n, splits, programs)
            for kind, bases in zip(packed.kinds, packed.bases.split(";"), strict=True)
        ),
        # A value and its mirror image are one: both have the gradients by pairs and by cells.
        "pairs": _mixing(2 * g.pairs, packed.order),
        "triples": _mixing(g.triples, packed.order),
        "cells": _mixing(2 * g.cells, packed.order),
        "by_rows": g.rows[packed.order].float(),
        "weighted": g.weighted[packed.order].float() if g.weighted.numel() else None,
        "room": x.new_empty(programs, span, count, TILE * TILE, dtype=dtype),
        "kept": x.new_empty(programs, span, TILE * TILE, dtype=dtype),
        "splits": splits,
        "items": blocks * splits,
        "programs": programs,
        "WIDTH": WIDTH,
        "SPAN": span,
        "PARAMETERS": any(wanted.parameters),
    }
    # A second tile in flight spills registers; two programs of a multiprocessor wait by turns.
    return Launch((programs,), arguments, {"num_warps": 4, "num_stages": 1}), packed


def _mixing(part: Tensor, order: Sequence[int]) -> Tensor | None:
    """Return what a layer's gradient has of each other's values, from the gradients of sums of two."""
    return (part + part.T)[order][:, order].float().contiguous() if part.numel() else None


def _is_norm(base: str) -> bool:
    """Return whether dimensions are taken one at a time: their gradients stand without gaps."""
    return base.startswith("norm")


def _made(
    kind: tuple[Any, ...], bases: str, order: Sequence[int], wanted: Wanted, n: int, splits: int, programs: int
) -> Made:
    """Return the gradients of a kind before the first tile: of those of its members that have any, the first ones."""
    ones, spans, parameters, first, members = kind
    pulled = [place for place in order[first : first + members] if place in wanted.pulled]
    rows, widths = (None,) * len(ones), (0,) * len(ones)
    if any(wanted.rows[place] for place in pulled):
        # Columns stand side by side: those of the first members end where the last of them does.
        widths = tuple(spans[len(pulled) - 1].sum(1).tolist())
        shapes = [
            (splits, width, n) if _is_norm(code) else (splits, n, width)
            for width, code in zip(widths, bases.split(), strict=True)
        ]
        rows = tuple(torch.zeros(shape, dtype=torch.float32, device=parameters.device) for shape in shapes)
    of_leaves = parameters.new_zeros(programs, len(pulled), *parameters.shape[1:], dtype=torch.float64)
    return Made(rows, of_leaves, widths, len(pulled))
