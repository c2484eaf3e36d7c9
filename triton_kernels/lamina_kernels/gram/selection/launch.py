"""How the Triton kernel of the nearest rows is launched, and what becomes of the groups that it finds."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.bounds import Bounds
from lamina_kernels.gram.operands import products_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.product_bounds import Sides, operands, prepare
from lamina_kernels.gram.selection.blocked import Found, decided
from lamina_kernels.gram.selection.forward import nearest_groups_kernel
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div, tiles

# Programs that keep the largest GPUs busy. It is the same number everywhere: results do not depend on the GPU.
PROGRAMS = 1024
LONGEST, PARTS = 64, 4
"""Groups of the longest list that spills no registers; and the least parts of y where it holds no more than k."""
GROUP = 8
"""Columns of a group, see `lowest_of_groups`; those of the groups that are found are all measured."""
PIECE = 4096
"""Rows whose groups are measured at a time."""


def nearest(p: Pairs, k: int) -> Found:
    """Return the k nearest rows of y of each row of x, from one launch."""
    target = dispatch.target(p.x)
    products = products_of(p, target)
    sides = prepare(p, products)
    launch = plan(p, sides, products, k, target)
    run(nearest_groups_kernel, launch, p.x)
    values, groups = (launch.arguments[name].transpose(0, 1).flatten(1) for name in ("values", "places"))
    values, order = values.topk(min(_kept(k), values.shape[1]), dim=1, largest=False, sorted=False)
    groups = groups.gather(1, order).long()
    floor = torch.minimum(values.amax(1), _behind(launch.arguments["values"])).double() / sides.factor**2

    distances = torch.empty(p.n, k, dtype=torch.float64, device=p.x.device)
    places = torch.empty(p.n, k, dtype=torch.int64, device=p.x.device)
    repaired = torch.zeros((), dtype=torch.int64, device=p.x.device)
    bounds = Bounds("nearest", p, PIECE * PIECE)
    for rows in tiles(p.n, PIECE):
        candidates = _columns(p, groups[rows], rows, sides.y.lost)
        distances[rows], places[rows], again = decided(bounds, rows, sides.x.lost[rows], candidates, floor[rows], k)
        repaired += again
    return Found(distances, places, repaired)


def plan(p: Pairs, sides: Sides, products: str, k: int, target: str) -> Launch:
    """Choose tiles and grid for a target, and allocate what the kernel writes.

    That is `values`, [splits, n, top] float32, the smallest bound of each group, and `places`, int32, the groups.
    """
    top = min(_kept(k), LONGEST)
    tile = tiling.nearest(target, products, p.m, top, grouped=p.x_groups is not None)
    blocks = ceil_div(p.n, tile.rows)
    least = 1 if top > k else PARTS
    splits = max(1, min(max(least, ceil_div(PROGRAMS, blocks)), ceil_div(p.m, tile.columns)))
    arguments = operands(sides, products, tile, target) | {
        "x_groups": p.x_groups,
        "y_groups": p.y_groups,
        "values": torch.empty(splits, p.n, top, dtype=torch.float32, device=p.x.device),
        "places": torch.empty(splits, p.n, top, dtype=torch.int32, device=p.x.device),
        "n": p.n,
        "m": p.m,
        "splits": splits,
        "scale": sides.scale,
        "APART": p.apart,
        "PRECISION": products,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "GROUP": GROUP,
        "TOP": top,
    }
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return Launch((blocks * splits,), arguments, options)


def _kept(k: int) -> int:
    """Return how many groups are measured: more than k, so that those left out are mostly known to be farther."""
    return 1 << k.bit_length()


def _behind(lists: Tensor) -> Tensor:
    """Return the least bound of what no list [splits, n, top] holds, [n]: a list that is full may have lost groups."""
    return lists.amax(2).amin(0)


def _columns(p: Pairs, groups: Tensor, rows: slice, lost: Tensor) -> Tensor:
    """Return the rows of y in some groups, [b, columns]; -1 for those that do not count."""
    columns = _members(groups).flatten(1)
    columns = columns.masked_fill((groups < 0).repeat_interleave(GROUP, 1) | (columns >= p.m), -1)
    out = lost[columns]
    if p.apart:
        out |= columns == torch.arange(p.n, device=columns.device)[rows, None]
    if p.x_groups is not None and p.y_groups is not None:
        out |= p.x_groups[rows, None] == p.y_groups[columns]
    return columns.masked_fill(out, -1)


def _members(groups: Tensor) -> Tensor:
    """Return the columns of each group, [..., GROUP]; see `lowest_of_groups`."""
    members = torch.arange(32, device=groups.device).view(4, 4, 2).transpose(0, 1).flatten(1)
    return groups[..., None] // 4 * 32 + members[groups % 4]
