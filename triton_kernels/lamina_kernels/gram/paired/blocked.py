"""The form for machines without a GPU: plain torch, one tile of scores at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from lamina_kernels.gram.blocked_bases import Index
from lamina_kernels.gram.blocked_scores import BLOCK, Scores
from lamina_kernels.gram.paired import moments
from lamina_kernels.gram.paired.groups import Sorted, by_group, sum_groups
from lamina_kernels.gram.paired.problem import Problem
from lamina_kernels.tiles.rows import accumulation_dtype, tiles

FEW = 16
"""Groups of a tile that are summed one by one: its rows then need not stand as memory has them."""


class _Span(NamedTuple):
    """Consecutive rows, in the order of their groups.

    Attributes:
        rows: The rows.
        first: The smallest group among them.
        group: [b], the group of each row, counted from `first`; None without groups.
        bounds: Where each of these groups starts, and where the last of them stops; nothing without groups.
    """

    rows: Index
    first: int = 0
    group: torch.Tensor | None = None
    bounds: Sequence[int] = ()


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], from tiles of scores.

    On a diagonal block both matrices are symmetric: a tile above the diagonal serves as its mirror image too.
    """
    if moments.cheaper(problem):
        return moments.hsic_sums(problem)
    dtype = accumulation_dtype(problem.of_x.x.dtype)
    in_order = None if problem.groups is None else by_group(problem.groups, problem.n_groups)
    K, L = (Scores(p, BLOCK, dtype) for p in problem.pairs)
    sums = problem.zeros()
    summed = [(others, _span(in_order, others)) for others in tiles(problem.m, BLOCK)]
    for rows in tiles(problem.n, BLOCK):
        # On a diagonal block the rows stand in the order of the columns, which the symmetry needs.
        these = _span(in_order if problem.diagonal else None, rows)
        K.turn_to(these.rows)
        L.turn_to(these.rows)
        for others, those in summed:
            if problem.diagonal and others.start < rows.start:
                continue
            k, l = K.tile(those.rows), L.tile(those.rows)  # noqa: E741
            if problem.diagonal and others == rows:
                k.fill_diagonal_(0)
                l.fill_diagonal_(0)
            for place, tile in _in_turn(k, l):
                _add(sums[place], these.rows, tile.T, those)
                if problem.diagonal and others != rows:
                    _add(sums[place], those.rows, tile, these)
    return sums


def _in_turn(k: torch.Tensor, l: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:  # noqa: E741
    """Yield the place of each sum and the tile to sum; the last two take the memory of `k` and of `l`."""
    yield 1, k
    yield 2, l
    yield 3, k.square()
    yield 0, k.mul_(l)
    yield 4, l.square_()


def _span(in_order: Sorted | None, rows: slice) -> _Span:
    """Return the rows that stand at `rows`."""
    if in_order is None:
        return _Span(rows)
    first = in_order.ids[rows.start]
    group = in_order.ids[rows] - first
    bounds = torch.searchsorted(group, torch.arange(int(group[-1]) + 2, device=group.device))
    return _Span(in_order.order[rows], int(first), group, bounds.tolist())


def _add(sums: torch.Tensor, rows: Index, tile: torch.Tensor, summed: _Span) -> None:
    """Add to `sums`, [n, n_groups], the sums of a tile, [summed, rows], over the rows that are summed."""
    if summed.group is None:
        sums[rows, 0] += tile.sum(0)
        return
    part = _of_groups(tile, summed.group, summed.bounds)
    sums[rows, summed.first : summed.first + len(part)] += part.T


def _of_groups(tile: torch.Tensor, group: torch.Tensor, bounds: Sequence[int]) -> torch.Tensor:
    """Return the sums of a tile over the rows of each of its groups, [groups, rows]."""
    if len(bounds) - 1 > FEW:
        return sum_groups(tile.contiguous(), group, len(bounds) - 1)
    return torch.stack([tile[start:stop].sum(0) for start, stop in itertools.pairwise(bounds)])
