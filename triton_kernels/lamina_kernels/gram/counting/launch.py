"""How the Triton kernel of counts is launched."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.bounds import rounded
from lamina_kernels.gram.counting.forward import counts_kernel
from lamina_kernels.gram.counting.thresholds import Thresholds
from lamina_kernels.gram.distances import leaf_of
from lamina_kernels.gram.operands import products_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.product_bounds import filled, operands, prepare
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div

# Programs that keep the largest GPUs busy. It is the same number everywhere.
PROGRAMS = 1024
# Columns of a pair that are measured at a time.
OWN_CHUNK = 16


def count(p: Pairs, radii: Thresholds) -> Tensor:
    """Return how many rows of y lie within the radius of each row of x, [n] int64."""
    launch = plan(p, radii.largest(strict=radii.strict), 0, dispatch.target(p.x))
    run(counts_kernel, launch, p.x)
    return launch.arguments["out"].sum(0, dtype=torch.int64)


def histogram(p: Pairs, edges: Thresholds) -> Tensor:
    """Return how many pairs lie in each bin, [edges - 1] int64."""
    # A bin ends before its last edge, the last one behind it.
    limits = edges.largest(strict=True)
    limits[-1] = edges.largest(strict=False)[-1]
    launch = plan(p, limits, len(limits), dispatch.target(p.x))
    run(counts_kernel, launch, p.x)
    return launch.arguments["out"].sum((0, 1))[: len(limits)].diff()


def plan(p: Pairs, limits: Tensor, edges: int, target: str) -> Launch:
    """Put the operands into order, choose tiles and grid for a target, and allocate what the kernel writes.

    Args:
        p: The pairs.
        limits: float64: the largest distance that counts, [n], one a row; or [edges], for all of them.
        edges: How many there are for all rows; 0 for one a row.
        target: See `dispatch.target`.
    """
    products = products_of(p, target)
    tiles = tiling.sums(target, products, ["square"])
    sides = prepare(p, products)
    x, y, scale, factor = sides
    x_own, y_own = (rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous() for rows in (p.x, p.y))
    blocks = ceil_div(p.n, tiles.rows)
    splits = max(1, min(ceil_div(PROGRAMS, blocks), ceil_div(p.m, tiles.columns)))
    room = 1 << max(edges - 1, 0).bit_length() if edges else 0
    shape = (splits, blocks, room) if edges else (splits, p.n)
    arguments: dict[str, Any] = operands(sides, products, tiles, target) | {
        "x_own": x_own,
        "y_own": y_own,
        "x_slack": x.slack,
        "y_slack": filled(y.slack, tiles.columns, 0.0),
        "x_groups": p.x_groups,
        "y_groups": p.y_groups,
        "below": rounded(limits * factor**2, -torch.inf, torch.float32),
        "above": rounded(limits * factor**2, torch.inf, torch.float32),
        "limits": limits,
        "out": torch.empty(shape, dtype=torch.int64 if edges else torch.int32, device=p.x.device),
        "n": p.n,
        "m": p.m,
        "splits": splits,
        "edges": edges,
        "own_width": x_own.shape[1],
        "x_own_stride": x_own.stride(0),
        "y_own_stride": y_own.stride(0),
        "scale": scale,
        "APART": p.apart,
        "DOT": leaf_of(p).base == "dot",
        "PRECISION": products,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
        "EDGES": room,
        "OWN_CHUNK": OWN_CHUNK,
    }
    return Launch((blocks * splits,), arguments, {"num_warps": tiles.warps, "num_stages": tiles.stages})
