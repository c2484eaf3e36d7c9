"""How the Triton kernel of sums for any two of many kernels is launched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram.dependence.blocked import Found, whole_groups
from lamina_kernels.gram.dependence.estimator import ids_of
from lamina_kernels.gram.dependence.forward import layers_kernel
from lamina_kernels.gram.dependence.layers import TILE, Layers
from lamina_kernels.gram.dependence.packing import Packed, pack, room_of
from lamina_kernels.gram.dependence.tile import Kind
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import kind as kind_of

SIDE = 20
"""Parts that rows are cut into: each program takes two of them, so that 210 keep the largest GPUs busy."""
CHUNK = 64
"""Numbers of a tile that are multiplied at a time."""


def sums(layers: Layers, centers: Tensor) -> Found:
    """Return the sums of any two kernels, see `blocked.sums`, from one launch."""
    launch, order = plan(layers, centers, dispatch.target(layers.pairs[0].x))
    run(layers_kernel, launch, layers.pairs[0].x)
    arguments, back = launch.arguments, torch.tensor(order, device=centers.device).argsort()
    of_two = []
    for name in ("pairs", "triples", "cells"):
        if arguments[name] is None:
            of_two.append(centers.new_empty(0, dtype=torch.float64))
        else:
            whole = arguments[name].sum(0)
            # The kernel multiplies blocks of layers that are not before each other.
            of_two.append((whole.triu() + whole.triu(1).T)[back][:, back])
    of_rows = [
        centers.new_empty(0, dtype=torch.float64) if arguments[name] is None else arguments[name].sum(0)[back]
        for name in ("sums", "weighted")
    ]
    return Found(of_two[0], *of_rows, *of_two[1:])


def plan(layers: Layers, centers: Tensor, target: str) -> tuple[Launch, list[int]]:
    """Put the rows side by side, cut them into blocks, and allocate what the kernel writes.

    Returns:
        The launch, and the number of each of its layers among the given ones.
    """
    packed = pack(layers, target, chunks=True)
    dtype, _ = room_of(layers, target)
    taken = shared(layers, packed, centers, target)
    n, count, x, blocks = layers.n, len(layers), layers.pairs[0].x, taken["blocks"]
    grouped, unequal = layers.sizes is not None, taken["of_rows"] is not None
    span = ceil_div(blocks, SIDE)
    across = ceil_div(blocks, span)
    corners = torch.triu_indices(across, across, dtype=torch.int32, device=x.device).T.contiguous()
    programs, rooms = len(corners), 4 if grouped else 1

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=x.device)

    arguments = taken | {
        "corners": corners,
        "room": torch.empty(programs, rooms, count, TILE * TILE, dtype=dtype, device=x.device),
        "pairs": zeros(programs, count, count),
        "triples": zeros(programs, count, count) if grouped else None,
        "cells": zeros(programs, count, count) if grouped else None,
        "sums": zeros(across + 1, count, n),
        "weighted": zeros(across + 1, count, n) if unequal else None,
        "across": across,
        "span": span,
        "LAYERS": 16 if count <= 16 else 32,
        "CHUNK": CHUNK,
    }
    return Launch(
        (programs,), arguments, {"num_warps": 4, "num_stages": 1 if kind_of(target) == "amd" else 2}
    ), packed.order


def shared(layers: Layers, packed: Packed, centers: Tensor, target: str) -> dict[str, Any]:
    """Return what the kernels of the sums and of their gradients take, by name."""
    n, device = layers.n, layers.pairs[0].x.device
    ids = starts = of_rows = of_groups = None
    blocks, squares = ceil_div(n, TILE), 0.0
    if layers.sizes is not None:
        sizes = layers.sizes.tolist()
        first = [rows.start for rows, _ in whole_groups(sizes, TILE)]
        starts, blocks = torch.tensor([*first, n], dtype=torch.int32, device=device), len(first)
        ids = ids_of(layers.sizes, n).int()
        if layers.size == 0:
            of_groups = layers.sizes.float()
            of_rows, squares = of_groups[ids], float(layers.sizes.square().sum())
    return {
        "kinds": tuple(Kind(*each) for each in packed.kinds),
        "centers": centers[packed.order].contiguous(),
        "ids": ids,
        "of_rows": of_rows,
        "of_groups": of_groups,
        "starts": starts,
        "n": n,
        "groups": 0 if of_groups is None else len(of_groups),
        "layers": len(layers),
        "blocks": blocks,
        "squares": squares,
        "CODES": packed.codes,
        "BASES": packed.bases,
        "PRECISIONS": packed.products,
        "PRECISION": room_of(layers, target)[1],
        "DIAGONAL": layers.diagonal,
        "ROWS": TILE,
        "COLUMNS": TILE,
    }
