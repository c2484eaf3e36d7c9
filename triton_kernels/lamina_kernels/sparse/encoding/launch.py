"""How the Triton kernel of an encoder is launched, and what becomes of the groups that it stores.

A sample of the units gives each row a limit that a few more than k groups reach. The k largest of what is stored are
the k largest of all, if the k-th reaches the limit and no group found the list full; other rows are encoded a second
time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.sparse.encoding import blocked
from lamina_kernels.sparse.encoding.best import largest
from lamina_kernels.sparse.encoding.forward import groups_above_kernel
from lamina_kernels.sparse.encoding.problem import Kept, Largest, Problem, poisoned, survey
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div, tiles
from lamina_kernels.tiles.target import accurate

GROUP = 32
"""Units of a group: 128 bytes of what is stored."""
SAMPLE = 4096
"""Units that are looked at beforehand, at most an eighth."""
PIECE = 2048
"""Rows whose groups are in memory at a time."""
PROGRAMS = 256
"""Programs that keep a GPU busy. It is the same number everywhere: results do not depend on the GPU."""


def keep(p: Problem, rule: Largest) -> Kept:
    """Return the largest of each row."""
    lost, overflows = survey(p)
    clean = p.x.masked_fill(lost[:, None], 0) if bool(lost.any()) else p.x
    found = Kept(
        torch.empty(p.n, rule.k, dtype=torch.float32, device=p.x.device),
        torch.empty(p.n, rule.k, dtype=torch.int32, device=p.x.device),
        None,
        torch.empty(0, device=p.x.device),
        torch.empty(0, dtype=torch.int64, device=p.x.device),
    )
    target = dispatch.target(p.x)
    # Of lost rows nothing is looked at.
    for rows in tiles(0 if bool(lost.all()) else p.n, PIECE):
        piece = Problem(clean[rows], p.weight, p.bias)
        found.pre[rows], found.ids[rows], again = _of_piece(piece, rule.k, target)
        # What overflows is for the other form to find.
        again = torch.arange(len(again), device=again.device) if overflows else again.nonzero()[:, 0]
        if len(again):
            repaired = blocked.keep(Problem(p.x[rows][again], p.weight, p.bias), rule)
            found.pre[rows.start + again], found.ids[rows.start + again] = repaired.pre, repaired.ids
    return poisoned(p, rule, found, lost)


def _of_piece(p: Problem, k: int, target: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return values and ids of the largest of some rows, and of which rows they are not known to be the largest."""
    limits, room = _limits(p, k)
    launch = plan(p, limits, room, target)
    run(groups_above_kernel, launch, p.x)
    counts, groups, values = (launch.arguments[name] for name in ("counts", "groups", "values"))
    room = groups.shape[2]
    stored = torch.arange(room, device=p.x.device) < counts[:, :, None]
    # Parts of the units come in their order, and groups in theirs: places ascend with ids.
    values = torch.where(stored[..., None] & ~values.isnan(), values, -torch.inf).transpose(0, 1).flatten(1)
    if values.shape[1] < k:
        return values.new_zeros(p.n, k), torch.zeros(p.n, k, dtype=torch.int32, device=p.x.device), limits == limits
    found, places = largest(values, k)
    groups = groups.transpose(0, 1).flatten(1).gather(1, places // GROUP)
    open_ = (found.amin(1) < limits) | (counts > room).any(0) | found.isinf().any(1)
    return found, groups * GROUP + (places % GROUP).int(), open_


def _limits(p: Problem, k: int) -> tuple[Tensor, int]:
    """Return a limit for each row, [n], and how many groups are expected to reach it at most."""
    step = max(8, ceil_div(p.m, SAMPLE))
    sample = p.weight[::step]
    products = p.x.to(p.dtype) @ sample.to(p.dtype).T
    products = products if p.bias is None else products + p.bias[::step].to(p.dtype)
    # As many of a sample reach the k-th largest as k / step, give or take their root.
    share = k / step
    rank = min(len(sample), math.ceil(share + 2 * math.sqrt(share)) + 1)
    limits = products.topk(rank, dim=1, sorted=False).values.amin(1)
    return limits, 2 * rank * step


def plan(p: Problem, limits: Tensor, expected: int, target: str) -> Launch:
    """Choose tiles and grid for a target, and allocate what the kernel writes.

    Args:
        p: The rows and units.
        limits: [n] float32.
        expected: How many groups of a row are to have room.
        target: See `dispatch.target`.
    """
    products = accurate(target) if p.x.dtype == torch.float32 else "half"
    tile = tiling.scores(target, products, p.m)
    # What is stored takes registers: wider tiles spill them.
    tile = tile._replace(columns=min(tile.columns, 64))
    blocks = ceil_div(p.n, tile.rows)
    splits = max(1, min(ceil_div(PROGRAMS, max(1, blocks)), ceil_div(p.m, tile.columns)))
    groups = ceil_div(p.m, GROUP)
    room = min(1 << (ceil_div(expected, splits) + 7).bit_length(), 1 << groups.bit_length())
    x = p.x if p.x.stride(1) == 1 or p.x.shape[1] <= 1 else p.x.contiguous()
    weight = p.weight if p.weight.stride(1) == 1 or p.weight.shape[1] <= 1 else p.weight.contiguous()
    device = p.x.device
    arguments = {
        "x": x,
        "weight": weight,
        "bias": None if p.bias is None else p.bias.contiguous(),
        "limits": limits,
        "counts": torch.zeros(splits, p.n, dtype=torch.int32, device=device),
        "groups": torch.zeros(splits, p.n, room, dtype=torch.int32, device=device),
        "values": torch.empty(splits, p.n, room, GROUP, dtype=torch.float32, device=device),
        "n": p.n,
        "m": p.m,
        "splits": splits,
        "width": x.shape[1],
        "x_stride": x.stride(0),
        "weight_stride": weight.stride(0),
        "PRECISION": products,
        "ROWS": tile.rows,
        "COLUMNS": tile.columns,
        "GROUP": GROUP,
        "ROOM": room,
        "CHUNK": tile.chunk,
    }
    return Launch((blocks * splits,), arguments, {"num_warps": tile.warps, "num_stages": tile.stages})
