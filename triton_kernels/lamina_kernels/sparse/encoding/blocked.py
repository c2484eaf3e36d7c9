"""What an encoder keeps, in plain torch and flat memory: tiles of pre-activations are looked at and forgotten.

Of most tiles nothing is kept, and one comparison with a limit a row, or a unit, says so.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding import walk
from lamina_kernels.sparse.encoding.best import Best, entries
from lamina_kernels.sparse.encoding.best import largest as largest_of
from lamina_kernels.sparse.encoding.pool import Pool
from lamina_kernels.sparse.encoding.problem import Above, Kept, Largest, Problem, Rule, Together, poisoned
from lamina_kernels.sparse.encoding.radix import kth_largest
from lamina_kernels.sparse.encoding.walk import Walk
from lamina_kernels.tiles.rows import ceil_div, tiles

SPARSE = 8
"""Tiles, at least, of which one is sampled beforehand."""


def keep(p: Problem, rule: Rule, *, positive: bool = False) -> Kept:
    """Return what a rule keeps."""
    w = Walk(p, positive=positive)
    if isinstance(rule, Largest):
        short = p.m // rule.groups <= walk.COLUMNS
        kept = _of_short_runs(p, rule, w) if short else _of_long_runs(p, rule, w)
    elif isinstance(rule, Together):
        kept = _together(p, rule, w)
    else:
        kept = _above(p, rule, w)
    return poisoned(p, rule, kept._replace(positive=w.positive()), w.lost)


def _of_short_runs(p: Problem, rule: Largest, w: Walk) -> Kept:
    """Keep the largest of runs of which a tile holds one or more."""
    out = _room(p, rule)
    length = max(1, p.m // rule.groups)
    for blocks in w.together():
        for number, cut, tile in w.tiles(blocks, tiles(p.m, walk.COLUMNS // length * length)):
            runs, block = (cut.stop - cut.start) // length, blocks[number]
            values, places = largest_of(_scores(tile, rule, cut).reshape(-1, length), rule.k)
            if rule.boost is not None:
                values = tile.view(-1, length).gather(1, places)
            first = torch.arange(cut.start, cut.stop, length, device=tile.device).repeat(len(tile))
            at = slice(cut.start // length * rule.k, (cut.start // length + runs) * rule.k)
            out.pre[block, at] = values.view(-1, runs * rule.k)
            out.ids[block, at] = (places + first[:, None]).view(-1, runs * rule.k).int()
            _add_mass(out, block, tile)
    return out


def _of_long_runs(p: Problem, rule: Largest, w: Walk) -> Kept:
    """Keep the largest of runs that are longer than a tile."""
    out = _room(p, rule)
    length = p.m // rule.groups
    for blocks in w.together():
        for run in range(rule.groups):
            best = [Best(b.stop - b.start, rule.k, out.pre, carried=rule.boost is not None) for b in blocks]
            cuts = (slice(run * length + c.start, run * length + c.stop) for c in tiles(length, walk.COLUMNS))
            for number, cut, tile in w.tiles(blocks, cuts):
                boosted = rule.boost is not None
                best[number].offer(_scores(tile, rule, cut), cut.start, tile if boosted else None)
                _add_mass(out, blocks[number], tile)
            at = slice(run * rule.k, (run + 1) * rule.k)
            for block, found in zip(blocks, best, strict=True):
                out.pre[block, at], out.ids[block, at] = found.settle()
    return out


def _together(p: Problem, rule: Together, w: Walk) -> Kept:
    like, rows = torch.empty(0, dtype=p.dtype, device=p.x.device), torch.arange(p.n, device=p.x.device)
    count = rule.k * p.n
    pool = Pool(count, p.m, like, limit=_sampled(p, count))
    offer_all(p, pool, rows, w)
    found = pool.settle()
    if len(found[0]) < count:
        # The sample was of larger numbers than the others are.
        pool = Pool(count, p.m, like)
        offer_all(p, pool, rows, Walk(p))
        found = pool.settle()
    return in_rows(p, *found)


def _sampled(p: Problem, count: int) -> float:
    """Return what more than `count` pre-activations should be above, by a tile's worth of them."""
    row_step, unit_step = ceil_div(p.n, walk.ROWS), ceil_div(p.m, walk.COLUMNS)
    if row_step * unit_step < SPARSE:
        return -torch.inf
    sampled = p.x[::row_step].to(p.dtype) @ p.weight[::unit_step].to(p.dtype).T
    if p.bias is not None:
        sampled += p.bias[::unit_step]
    # As many of a sample are above it as its share, give or take their root, and a quarter for rows that differ.
    share = 1.25 * count / (row_step * unit_step)
    rank = min(sampled.numel(), math.ceil(share + 4 * math.sqrt(share)) + 1)
    return float(kth_largest(sampled.nan_to_num_().flatten(), rank))


def offer_all(p: Problem, pool: Pool, rows: Tensor, w: Walk) -> None:
    """Offer all pre-activations to a pool, in which the rows of the problem have these numbers."""
    for blocks in w.together():
        for number, cut, tile in w.tiles(blocks, tiles(p.m, walk.COLUMNS)):
            pool.offer(tile, rows[blocks[number]], cut.start)


def _above(p: Problem, rule: Above, w: Walk) -> Kept:
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for blocks in w.together():
        parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in blocks]
        for number, cut, tile in w.tiles(blocks, tiles(p.m, walk.COLUMNS)):
            block = blocks[number]
            limit = tile.new_zeros(()) if rule.units is None else rule.units[cut]
            limit = limit if rule.rows is None else limit + rule.rows[block, None]
            row, column = entries(tile > limit)
            parts[number].append((tile[row, column], row + block.start, (column + cut.start).int()))
        for part in parts:
            pre, rows, ids = (torch.cat(some) for some in zip(*part, strict=True)) if part else _nothing(p)
            order = rows.argsort(stable=True)
            found.append((pre[order], rows[order], ids[order]))
    pre, rows, ids = (torch.cat(some) for some in zip(*found, strict=True)) if found else _nothing(p)
    return in_rows(p, pre, rows, ids)


def _nothing(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.empty(0, dtype=torch.int64, device=p.x.device)
    return none.to(p.dtype), none, none.int()


def in_rows(p: Problem, pre: Tensor, rows: Tensor, ids: Tensor) -> Kept:
    """Return entries that stand in the order of their rows."""
    counts = rows.bincount(minlength=p.n)
    return Kept(pre, ids.int(), torch.cat([counts.new_zeros(1), counts.cumsum(0)]), pre.new_empty(0), pre.new_empty(0))


def _room(p: Problem, rule: Largest) -> Kept:
    """Return what `Largest` keeps, to be filled."""
    pre = torch.empty(p.n, rule.k * rule.groups, dtype=p.dtype, device=p.x.device)
    mass = torch.zeros(p.n if rule.mass else 0, dtype=p.dtype, device=p.x.device)
    return Kept(pre, torch.empty_like(pre, dtype=torch.int32), None, mass, pre.new_empty(0))


def _scores(tile: Tensor, rule: Largest, cut: slice) -> Tensor:
    """Return what is compared."""
    return tile if rule.boost is None else tile * rule.boost[cut].to(tile.dtype)


def _add_mass(out: Kept, block: slice, tile: Tensor) -> None:
    if len(out.mass):
        out.mass[block] += tile.clamp(min=0).sum(1)
