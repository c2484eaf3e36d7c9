"""What an encoder keeps, chosen from the groups of units that the Triton kernel stores.

The kernel is given a limit for each row, and stores the groups that reach it, in lists of so much room. What is chosen
from them is what would be chosen of all units if no list was full and no limit too high; rows of which that is not
known are encoded a second time, by `blocked`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.sparse.encoding import blocked
from lamina_kernels.sparse.encoding.best import largest
from lamina_kernels.sparse.encoding.launch import GROUP, groups_above
from lamina_kernels.sparse.encoding.pool import Pool
from lamina_kernels.sparse.encoding.problem import Above, Kept, Largest, Problem, Rule, Together, poisoned, survey
from lamina_kernels.sparse.encoding.radix import kth_largest
from lamina_kernels.sparse.encoding.walk import Walk
from lamina_kernels.tiles.rows import ceil_div, tiles

SAMPLE = 4096
"""Units that are looked at beforehand, at most an eighth."""
PIECE = 2048
"""Rows whose groups are in memory at a time."""
SURE = 0.99
"""The share of the rows whose lists are to have room, by the sample; others are encoded a second time."""
BYTES = 2**28
"""Bytes of these groups, above which the piece is cut."""


def keep(p: Problem, rule: Rule, *, positive: bool = False) -> Kept:
    """Return what a rule keeps; it is none that `support` refuses."""
    lost, overflows = survey(p)
    if overflows or bool(lost.all()) or p.m == 0:
        # What overflows is for the other form to find; lost rows and no units are no work.
        return blocked.keep(p, rule, positive=positive)
    # Of lost rows nothing is looked at.
    clean = Problem(p.x.masked_fill(lost[:, None], 0) if bool(lost.any()) else p.x, p.weight, p.bias)
    target = dispatch.target(p.x)
    counts = torch.zeros(p.m, dtype=torch.int32, device=p.x.device) if positive else None
    if isinstance(rule, Largest):
        kept = _largest(clean, rule, target, counts)
    elif isinstance(rule, Together):
        kept = _together(clean, rule, target, counts)
    else:
        kept = _above(clean, rule, target, counts)
    if counts is not None:
        # What stood in place of lost rows was zeros, and of these the bias is the pre-activation.
        zeros = 0 if p.bias is None else lost.sum() * (p.bias > 0)
        kept = kept._replace(positive=counts - zeros)
    return poisoned(p, rule, kept, lost)


def _largest(p: Problem, rule: Largest, target: str, positive: Tensor | None) -> Kept:
    pre = torch.empty(p.n, rule.groups * rule.k, dtype=torch.float32, device=p.x.device)
    ids = torch.empty_like(pre, dtype=torch.int32)
    mass = torch.empty(p.n if rule.mass else 0, dtype=torch.float32, device=p.x.device)
    length = p.m // rule.groups
    for run in range(rule.groups):
        own = slice(run * length, (run + 1) * length)
        boost = None if rule.boost is None else rule.boost[own]
        at = slice(run * rule.k, (run + 1) * rule.k)
        for rows in tiles(p.n, PIECE):
            piece = Problem(p.x[rows], p.weight[own], None if p.bias is None else p.bias[own])
            counts = None if positive is None else positive[own]
            values, units, again, sums = _largest_of(piece, rule, boost, target, counts)
            if sums is not None:
                mass[rows] = sums.sum(0)
            again = again.nonzero()[:, 0]
            if len(again):
                repaired = blocked.keep(Problem(piece.x[again], piece.weight, piece.bias), Largest(rule.k, boost=boost))
                values[again], units[again] = repaired.pre, repaired.ids
            pre[rows, at], ids[rows, at] = values, units + own.start
    return Kept(pre, ids, None, mass, pre.new_empty(0))


def _largest_of(
    p: Problem, rule: Largest, boost: Tensor | None, target: str, positive: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return values and ids of the largest of some rows, of which rows they are not known to be, and the rows' sums."""
    k = rule.k
    sampled, step = _sampled(p, boost)
    # As many of a sample reach the k-th largest as k / step, give or take their root.
    share = k / step
    rank = min(sampled.shape[1], math.ceil(share + 2 * math.sqrt(share)) + 1)
    limits = sampled.topk(rank, dim=1, sorted=False).values.amin(1)
    found = groups_above(p, limits, 2 * rank * step, target, boost=boost, mass=rule.mass, positive=positive)
    if found.lists * GROUP < k:
        nothing = torch.zeros(p.n, k, device=limits.device)
        return nothing, nothing.int(), torch.ones_like(limits, dtype=torch.bool), found.mass
    # The k largest stand in the k groups with the largest maxima. Lists are in the order of ids.
    highest = torch.where(found.there(), found.highest, -torch.inf).transpose(0, 1).flatten(1)
    best, places = largest(highest, min(k, found.lists))
    values, units = found.members(torch.arange(p.n, device=limits.device)[:, None], places)
    values = torch.where(best[..., None] > -torch.inf, values, -torch.inf).flatten(1)
    units = units.flatten(1).clamp(0, p.m - 1)
    scores, places = largest(values if boost is None else values * boost[units], k)
    again = (scores.amin(1) < limits) | found.full() | scores.isinf().any(1)
    return values.gather(1, places), units.gather(1, places).int(), again, found.mass


def _above(p: Problem, rule: Above, target: str, positive: Tensor | None) -> Kept:
    parts = [_nothing(p)]
    for rows in tiles(p.n, PIECE):
        own = None if rule.rows is None else rule.rows[rows]
        piece = Problem(p.x[rows], p.weight, p.bias)
        sampled, step = _sampled(piece, None)
        counts = (sampled > _limits(None if rule.units is None else rule.units[::step], own)).sum(1)
        values, at, ids, full = _above_of(piece, rule.units, own, _expected(counts, step), target, positive)
        if len(full):
            left = Above(rule.units, None if own is None else own[full])
            repaired = blocked.keep(Problem(piece.x[full], p.weight, p.bias), left)
            assert repaired.indptr is not None
            at = torch.cat([at, full.repeat_interleave(repaired.indptr.diff())])
            order = at.argsort(stable=True)
            values, at = torch.cat([values, repaired.pre])[order], at[order]
            ids = torch.cat([ids, repaired.ids])[order]
        parts.append((values, at + rows.start, ids))
    return blocked.in_rows(p, *(torch.cat(some) for some in zip(*parts, strict=True)))


def _together(p: Problem, rule: Together, target: str, positive: Tensor | None) -> Kept:
    pool = Pool(rule.k * p.n, p.m, p.x.new_empty(0, dtype=p.dtype))
    dropped = -math.inf
    for rows in tiles(p.n, PIECE):
        piece = Problem(p.x[rows], p.weight, p.bias)
        sampled, step = _sampled(piece, None)
        # A quarter more than the share of these rows: others may have fewer.
        share = 1.25 * rule.k * len(piece.x) / step
        rank = min(sampled.numel(), math.ceil(share + 4 * math.sqrt(share)) + 1)
        limit = float(kth_largest(sampled.flatten(), rank))
        if limit > pool.limit:
            dropped = max(dropped, limit)
        limits = sampled.new_full((len(piece.x),), max(limit, pool.limit))
        counts = (sampled >= limits[:, None]).sum(1)
        below = torch.nextafter(limits, torch.full_like(limits, -math.inf))
        values, at, ids, full = _above_of(piece, None, below, _expected(counts, step), target, positive)
        pool.add(values, at + rows.start, ids)
        if len(full):
            again = Problem(piece.x[full], p.weight, p.bias)
            blocked.offer_all(again, pool, full + rows.start, Walk(again))
    pre, at, ids = pool.settle()
    if len(pre) < rule.k * p.n or float(pre.amin()) < dropped:
        # Something that was dropped may be larger.
        return blocked.keep(p, rule)
    return blocked.in_rows(p, pre, at, ids)


def _above_of(
    p: Problem, units: Tensor | None, rows: Tensor | None, expected: int, target: str, positive: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what lies above the limits of units and rows: values, rows, ids.

    The last are rows of which it is not known: nothing of theirs is among the others.
    """
    parts, missed = [_nothing(p)], [torch.empty(0, dtype=torch.int64, device=p.x.device)]
    room = 4 * GROUP * min(expected, ceil_div(p.m, GROUP))
    for some in tiles(p.n, max(256, BYTES // room)):
        piece = Problem(p.x[some], p.weight, p.bias)
        own = None if rows is None else rows[some]
        limits = torch.zeros(len(piece.x), device=p.x.device) if own is None else own
        if units is not None and own is not None:
            # The kernel takes one off and compares with the other: that rounds.
            limits = own - 4 * torch.finfo(own.dtype).eps * (own.abs() + units.abs().amax())
        found = groups_above(piece, limits, expected, target, shift=units, positive=positive)
        full = found.full()
        row, lists = (found.there() & ~full[None, :, None]).transpose(0, 1).flatten(1).nonzero().unbind(1)
        values, ids = found.members(row, lists)
        limit = _limits(None if units is None else units[ids.clamp(max=p.m - 1)], None if own is None else own[row])
        group, member = (values > limit).nonzero().unbind(1)
        parts.append((values[group, member], row[group] + some.start, ids[group, member]))
        missed.append(full.nonzero()[:, 0] + some.start)
    values, row, ids = (torch.cat(part) for part in zip(*parts, strict=True))
    return values, row, ids, torch.cat(missed)


def _limits(units: Tensor | None, rows: Tensor | None) -> Tensor | float:
    """Return the sum of the limits of units [..., M] and of rows [n]."""
    limit = 0.0 if units is None else units
    return limit if rows is None else limit + rows[:, None]


def _sampled(p: Problem, boost: Tensor | None) -> tuple[Tensor, int]:
    """Return what is compared of some of the units, and every how many-th these are."""
    step = max(8, ceil_div(p.m, SAMPLE))
    # Rounded as the rows are: limits are guesses, and whether they were too high is seen afterwards.
    sampled = (p.x @ p.weight[::step].T).to(p.dtype)
    if p.bias is not None:
        sampled += p.bias[::step]
    if boost is not None:
        sampled *= boost[::step]
    return sampled.nan_to_num_(), step


def _expected(counts: Tensor, step: int) -> int:
    """Return for how many groups of a row there should be room, by how many of a sample were chosen, [n]."""
    return int(2 * step * (counts.float().quantile(SURE).ceil() + 1))


def _nothing(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    none = torch.empty(0, dtype=torch.int64, device=p.x.device)
    return none.to(p.dtype), none, none
