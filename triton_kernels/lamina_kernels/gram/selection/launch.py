"""How the Triton kernel of the nearest rows is launched, and what becomes of the groups that it finds."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram.bounds import Bounds
from lamina_kernels.gram.paired.tiling import tiling
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.product_bounds import prepare
from lamina_kernels.gram.selection.blocked import Found, decided
from lamina_kernels.gram.selection.forward import nearest_groups_kernel
from lamina_kernels.tiles.rows import ceil_div, tiles
from lamina_kernels.tiles.target import accurate

# Programs that keep the largest GPUs busy. It is the same number everywhere: results do not depend on the GPU.
PROGRAMS = 1024
GROUP = 8
"""Columns of a group; those of the groups that are found are all measured."""
PIECE = 4096
"""Rows whose groups are measured at a time."""


class Launch(NamedTuple):
    """One launch.

    Attributes:
        grid: The number of programs.
        arguments: The kernel's arguments by name.
        options: Warps and stages.
        values: [splits, n, top] float32, the smallest bound of each group, which the kernel writes.
        places: [splits, n, top] int32, the groups, likewise.
        factor: What rows were multiplied with, a power of 2.
        lost: [n], which rows of x are not finite.
        lost_others: [m], which rows of y.
    """

    grid: tuple[int]
    arguments: dict[str, Any]
    options: dict[str, int]
    values: Tensor
    places: Tensor
    factor: float
    lost: Tensor
    lost_others: Tensor


def nearest(p: Pairs, k: int) -> Found:
    """Return the k nearest rows of y of each row of x, from one launch."""
    launch = plan(p, k, dispatch.target(p.x))
    keywords: dict[str, Any] = launch.arguments | launch.options
    with torch.cuda.device(p.x.device) if p.x.is_cuda else nullcontext():
        nearest_groups_kernel[launch.grid](**keywords)
    top = launch.values.shape[2]
    values, order = launch.values.transpose(0, 1).flatten(1).topk(top, dim=1, largest=False, sorted=False)
    groups = launch.places.transpose(0, 1).flatten(1).gather(1, order).long()
    floor = values.amax(1).double() / launch.factor**2

    distances = torch.empty(p.n, k, dtype=torch.float64, device=p.x.device)
    places = torch.empty(p.n, k, dtype=torch.int64, device=p.x.device)
    repaired = torch.zeros((), dtype=torch.int64, device=p.x.device)
    bounds = Bounds("nearest", p, PIECE * PIECE)
    for rows in tiles(p.n, PIECE):
        candidates = _columns(p, groups[rows], rows, launch.lost_others)
        distances[rows], places[rows], again = decided(bounds, rows, launch.lost[rows], candidates, floor[rows], k)
        repaired += again
    return Found(distances, places, repaired)


def plan(p: Pairs, k: int, target: str) -> Launch:
    """Put the operands into order, choose tiles and grid for a target, and allocate what the kernel writes."""
    precision = p.precision or accurate(target)
    products = precision if p.x.dtype == torch.float32 else "half"
    top = 1 << k.bit_length()
    tile = tiling(target, "bf16x6" if products == "bf16x3" else products, p.m)
    # Lists of 32 groups and more leave registers for smaller tiles; those of 128, for k = 64, spill.
    if top >= 32 and products in ("half", "tf32"):
        tile = tile._replace(rows=64, columns=128 if top == 32 else 64, chunk=min(tile.chunk, 32))
    elif top >= 64:
        tile = tile._replace(rows=64)
    x, y, scale, factor = prepare(p, products)
    blocks = ceil_div(p.n, tile.rows)
    splits = max(1, min(ceil_div(PROGRAMS, blocks), ceil_div(p.m, tile.columns)))
    values = torch.empty(splits, p.n, top, dtype=torch.float32, device=p.x.device)
    places = torch.empty(splits, p.n, top, dtype=torch.int32, device=p.x.device)
    width = x.rows.shape[1]
    whole = width <= tile.whole
    arguments = {
        "x": x.rows,
        "y": y.rows,
        "x_bias": x.bias,
        "y_bias": y.bias,
        "x_groups": p.x_groups,
        "y_groups": p.y_groups,
        "values": values,
        "places": places,
        "n": p.n,
        "m": p.m,
        "splits": splits,
        "width": width,
        "x_stride": x.rows.stride(0),
        "y_stride": y.rows.stride(0),
        "scale": scale,
        "APART": p.apart,
        "PRECISION": products,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "GROUP": GROUP,
        "TOP": top,
        # A matrix instruction takes at least 16 columns.
        "CHUNK": max(16, 1 << (width - 1).bit_length()) if whole else tile.chunk,
        "WHOLE": whole,
    }
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return Launch((blocks * splits,), arguments, options, values, places, factor, x.lost, y.lost)


def _columns(p: Pairs, groups: Tensor, rows: slice, lost: Tensor) -> Tensor:
    """Return the rows of y in some groups, [b, columns]; -1 for those that do not count."""
    columns = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=groups.device)).flatten(1)
    columns = columns.masked_fill((groups < 0).repeat_interleave(GROUP, 1) | (columns >= p.m), -1)
    out = lost[columns]
    if p.apart:
        out |= columns == torch.arange(p.n, device=columns.device)[rows, None]
    if p.x_groups is not None and p.y_groups is not None:
        out |= p.x_groups[rows, None] == p.y_groups[columns]
    return columns.masked_fill(out, -1)
