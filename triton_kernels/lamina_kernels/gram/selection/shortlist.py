"""The smallest numbers of each row of a matrix that comes tile by tile, without a sort of every tile."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamina_kernels.gram.bounds import Bounds

GROUP = 16
"""Columns of which the smallest number is found first."""
ROOM = 32
"""Numbers that a row collects before the smallest of all of them are chosen anew."""


class Shortlist:
    """For each row the smallest numbers so far, their columns, and those that came since they were chosen.

    Args:
        rows: How many rows.
        kept: How many numbers of each are kept.
        bounds: The matrix.
    """

    def __init__(self, rows: int, kept: int, bounds: Bounds) -> None:
        p, shape = bounds.pairs, (rows, kept + ROOM)
        self._kept = kept
        self.values = torch.full(shape, torch.inf, dtype=bounds.dtype, device=p.x.device)
        narrow = p.m <= torch.iinfo(torch.int32).max
        self.places = torch.full(shape, -1, dtype=torch.int32 if narrow else torch.int64, device=p.x.device)
        self._fill = torch.zeros(rows, dtype=torch.int64, device=p.x.device)
        # What is not below it cannot be among the smallest.
        self.limit = self.values[:, 0].clone()

    def offer(self, tile: Tensor, first: int) -> None:
        """Take the smallest numbers of a tile, whose columns are counted from `first`."""
        grouped = tile.unflatten(1, (math.gcd(tile.shape[1], GROUP), -1))
        self._look(tile, grouped, grouped.amin(1), first)

    def offer_columns(self, tile: Tensor, first: int) -> None:
        """Take the smallest numbers of a tile that is mirrored: its columns are rows, its rows counted from `first`."""
        grouped = tile.unflatten(0, (math.gcd(tile.shape[0], GROUP), -1))
        # Along the columns as they lie: of a transposed tile the same takes 50 times as long.
        self._look(tile.T, grouped.permute(2, 0, 1), grouped.amin(0).T, first)

    def _look(self, tile: Tensor, grouped: Tensor, lowest: Tensor, first: int) -> None:
        """Take the smallest numbers of [rows, columns], which are also [rows, groups' size, groups].

        Most rows have none in most tiles: the smallest of a group of columns says so for all of them.
        """
        if first == 0:
            self._begin(lowest if lowest.shape[1] >= self._kept else tile)
        row, at = (lowest < self.limit[:, None]).nonzero().unbind(1)
        if len(row) == 0:
            return
        values = grouped[row, :, at]
        some, member = (values < self.limit[row, None]).nonzero().unbind(1)
        self._take(row[some], first + member * grouped.shape[2] + at[some], values[some, member])

    def best(self) -> tuple[Tensor, Tensor]:
        """Return the columns of the smallest numbers, [rows, kept] int64, and what no other number is below.

        The latter is [rows] float64, and infinite where there is no other.
        """
        values, places = self.settle()
        return places.long(), values.amax(1).double()

    def settle(self) -> tuple[Tensor, Tensor]:
        """Choose the smallest of all numbers; return them in no order, and their columns, -1 where there are fewer."""
        values, order = self.values.topk(self._kept, dim=1, largest=False, sorted=False)
        places = self.places.gather(1, order)
        self.values.fill_(torch.inf)
        self.places.fill_(-1)
        self.values[:, : self._kept], self.places[:, : self._kept] = values, places
        self._fill.zero_()
        self.limit = torch.minimum(self.limit, values.amax(1))
        return values, places

    def _begin(self, lowest: Tensor) -> None:
        """Limit the first tile's numbers: as many groups, or columns, as are kept have one that is not larger."""
        if lowest.shape[1] >= self._kept:
            limit = lowest.topk(self._kept, dim=1, largest=False, sorted=False).values.amax(1)
            self.limit = torch.nextafter(limit, torch.full_like(limit, torch.inf))

    def _take(self, row: Tensor, place: Tensor, value: Tensor) -> None:
        """Collect numbers, which come in the order of their rows, as many at a time as there is room for."""
        while len(row):
            counts = row.bincount(minlength=len(self._fill))
            slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row] + self._fill[row]
            full = bool((self._fill + counts > ROOM).any())
            if not full:
                self._put(row, slot, place, value)
                self._fill += counts
                return
            fits = slot < ROOM
            self._put(row[fits], slot[fits], place[fits], value[fits])
            self.settle()
            left = ~fits & (value < self.limit[row])
            row, place, value = row[left], place[left], value[left]

    def _put(self, row: Tensor, slot: Tensor, place: Tensor, value: Tensor) -> None:
        self.values[row, self._kept + slot] = value
        self.places[row, self._kept + slot] = place.to(self.places.dtype)
