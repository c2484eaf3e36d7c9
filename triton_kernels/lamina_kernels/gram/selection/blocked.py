"""The k nearest rows in plain torch, exactly: candidates by lower bounds, their distances from differences, repair.

Of each row the candidates are a few more than k, with the smallest lower bounds. Where the k-th distance among them is
below all other bounds, no other row can be nearer. Where it is not, every row whose bound is not above it is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from lamina_kernels.gram.bounds import Bounds
from lamina_kernels.gram.distances import leaf_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.selection import gathered
from lamina_kernels.gram.selection.shortlist import Shortlist
from lamina_kernels.tiles.rows import tiles

ROWS, COLUMNS = 1024, 1024
"""Rows and columns of a tile, of 4 MB in float32: what a tile costs beside the product is then a tenth of that."""
TOGETHER = 8
"""Blocks of rows that meet the same columns, which are made ready once for all of them."""
SPARE = 6
"""Candidates beyond those that are asked for."""


Candidates: TypeAlias = tuple[slice, Tensor, tuple[Tensor, Tensor]]
"""Rows of x, which of them are not finite, and what `Shortlist.best` returns of them."""


class Found(NamedTuple):
    """The nearest rows, without the leaf's weight.

    Attributes:
        distances: [n, k] float64, ascending; infinite where there are fewer, NaN for a row that is not finite.
        places: [n, k] int64, rows of y, those at one distance ascending; -1 where there is none.
        repaired: How many rows were compared a second time, a number in int64.
    """

    distances: Tensor
    places: Tensor
    repaired: Tensor


def nearest(p: Pairs, k: int) -> Found:
    """Return the k nearest rows of y of each row of x."""
    distances = torch.empty(p.n, k, dtype=torch.float64, device=p.x.device)
    places = torch.empty(p.n, k, dtype=torch.int64, device=p.x.device)
    repaired = torch.zeros((), dtype=torch.int64, device=p.x.device)
    bounds = Bounds("nearest", p, ROWS * max(ROWS, COLUMNS))
    search = _mirrored if p.symmetric else _candidates
    for rows, lost, (candidates, floor) in search(bounds, min(k + SPARE, p.m)):
        distances[rows], places[rows], again = decided(bounds, rows, lost, candidates, floor, k)
        repaired += again
    return Found(distances, places, repaired)


def _candidates(bounds: Bounds, kept: int) -> Iterator[Candidates]:
    """Yield blocks of rows of x with the rows of y of their smallest lower bounds."""
    blocks = list(tiles(bounds.pairs.n, ROWS))
    for some in tiles(len(blocks), TOGETHER):
        sides = [bounds.left(rows) for rows in blocks[some]]
        lists = [Shortlist(len(x.lost), kept, bounds) for x in sides]
        for columns in tiles(bounds.pairs.m, COLUMNS):
            y = bounds.right(columns)
            for x, shortlist in zip(sides, lists, strict=True):
                shortlist.offer(bounds.tile(x, y), columns.start)
        for rows, x, shortlist in zip(blocks[some], sides, lists, strict=True):
            yield rows, x.lost, shortlist.best()


def _mirrored(bounds: Bounds, kept: int) -> Iterator[Candidates]:
    """Yield the same where all is symmetric: a tile is offered to its rows and, mirrored, to its columns.

    So half of the products are enough; in exchange, the lists of all rows are in memory.
    """
    blocks = list(tiles(bounds.pairs.n, ROWS))
    lists = [Shortlist(rows.stop - rows.start, kept, bounds) for rows in blocks]
    for some in tiles(len(blocks), TOGETHER):
        sides = [bounds.left(rows) for rows in blocks[some]]
        # Of rows that are done there are no lists any more: the first is that of the first of these blocks.
        for columns, mirrored in zip(blocks[some.start :], lists, strict=True):
            y = bounds.right(columns)
            for rows, x, shortlist in zip(blocks[some], sides, lists, strict=False):
                if rows.start > columns.start:
                    break
                tile = bounds.tile(x, y)
                shortlist.offer(tile, columns.start)
                if rows.start < columns.start:
                    if bool(x.lost.any()):  # `tile` has hidden columns alone.
                        tile.masked_fill_(x.lost[:, None], torch.inf)
                    mirrored.offer_columns(tile, rows.start)
        for rows, x in zip(blocks[some], sides, strict=True):
            yield rows, x.lost, lists.pop(0).best()


def decided(
    bounds: Bounds, rows: slice, lost: Tensor, candidates: Tensor, floor: Tensor, k: int
) -> tuple[Tensor, Tensor, int]:
    """Return distances and places of the k nearest of some rows, and how many were compared a second time.

    Args:
        bounds: Of all pairs.
        rows: Rows of x.
        lost: [b], which of them are not finite.
        candidates: [b, at least k], rows of y; -1 for none.
        floor: [b] float64, a lower bound of the distances to all other rows; infinite where there is no other.
        k: How many.
    """
    values, places = ordered(
        gathered.distances(bounds.base, bounds.pairs.x[rows], bounds.pairs.y, candidates), candidates
    )
    values, places = values[:, :k].contiguous(), places[:, :k].contiguous()
    # Not below: equally far rows may have lower places.
    open_ = ((values[:, -1] >= floor) & floor.isfinite() & ~lost).nonzero()[:, 0]
    if len(open_):
        values[open_], places[open_] = compared(bounds, rows.start + open_, values[open_, -1], k)
    return values.masked_fill_(lost[:, None], torch.nan), places.masked_fill_(lost[:, None], -1), len(open_)


def compared(bounds: Bounds, rows: Tensor, limits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return distances and places of the k nearest of some rows from differences, but for rows that bounds exclude.

    Args:
        bounds: Of all pairs.
        rows: [b], rows of x.
        limits: [b] float64, no less than the distance of the k-th.
        k: How many.
    """
    p = bounds.pairs
    x = bounds.left(rows)
    best = torch.full((len(rows), k), torch.inf, dtype=torch.float64, device=rows.device)
    places = torch.full((len(rows), k), -1, dtype=torch.int64, device=rows.device)
    for columns in tiles(p.m, COLUMNS):
        row, column = (bounds.tile(x, bounds.right(columns)) <= bounds.above(limits)[:, None]).nonzero().unbind(1)
        if len(row) == 0:
            continue
        column += columns.start
        counts = row.bincount(minlength=len(rows))
        slot = torch.arange(len(row), device=rows.device) - (counts.cumsum(0) - counts)[row]
        near = torch.full((len(rows), int(counts.max())), -1, dtype=torch.int64, device=rows.device)
        near[row, slot] = column
        found = torch.full(near.shape, torch.inf, dtype=torch.float64, device=rows.device)
        found[row, slot] = gathered.distances_of_pairs(bounds.base, p.x, p.y, rows[row], column)
        best, order = torch.cat([best, found], 1).sort(dim=1, stable=True)
        best, places = best[:, :k], torch.cat([places, near], 1).gather(1, order[:, :k])
        limits = torch.minimum(limits, best[:, -1])
    return best, places


def ordered(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances ascending, and their places, those at one distance ascending."""
    places, order = places.sort(dim=1)
    values, again = values.gather(1, order).sort(dim=1, stable=True)
    return values, places.gather(1, again)


def weighted(p: Pairs, distances: Tensor) -> Tensor:
    """Return distances with the leaf's weight."""
    return distances * p.parameters[leaf_of(p).place, 0]
