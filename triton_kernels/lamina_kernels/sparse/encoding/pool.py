"""The largest numbers of a whole matrix that comes piece by piece; of equal ones those that stand first, rows first."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding.best import entries
from lamina_kernels.sparse.encoding.radix import kth_largest

SPARE = 2
"""How often the numbers that are kept fit into the pool before the largest are chosen anew."""


class Pool:
    """The `count` largest numbers so far, and those that came since they were chosen.

    They may come in any order: what equals the smallest of the largest is taken too, and its place decides.

    Attributes:
        limit: What is below it cannot be among the largest.

    Args:
        count: How many numbers, at least 1.
        width: How many columns the matrix has.
        like: Gives dtype and device of the numbers.
        limit: Below what nothing is taken. If there are `count` numbers that are not, they are the largest of all.
    """

    def __init__(self, count: int, width: int, like: Tensor, *, limit: float = -torch.inf) -> None:
        self._count, self._width = count, width
        self._values = [like.new_empty(0)]
        self._places = [torch.empty(0, dtype=torch.int64, device=like.device)]
        self._held = 0
        self.limit = limit

    def offer(self, tile: Tensor, rows: Tensor, first: int) -> None:
        """Take the largest numbers of a tile.

        Args:
            tile: [r, c].
            rows: [r] int64, its rows.
            first: The first of its columns.
        """
        if self.limit == -torch.inf and tile.numel() > self._count:
            self.limit = float(kth_largest(tile.flatten(), self._count))
        row, column = entries(tile >= self.limit)
        self.add(tile[row, column], rows[row], column + first)

    def add(self, values: Tensor, rows: Tensor, columns: Tensor) -> None:
        """Take numbers [s] by their rows and columns."""
        self._values.append(values)
        self._places.append(rows * self._width + columns)
        self._held += len(values)
        if self._held > SPARE * self._count:
            self.settle()

    def settle(self) -> tuple[Tensor, Tensor, Tensor]:
        """Choose the largest of all numbers; return them, their rows and their columns, in the order of these."""
        values, places = torch.cat(self._values), torch.cat(self._places)
        if len(values) > self._count:
            limit = kth_largest(values, self._count)
            chosen = values > limit
            equal = (values == limit).nonzero()[:, 0]
            first = places[equal].argsort()[: self._count - int(chosen.sum())]
            chosen[equal[first]] = True
            values, places, self.limit = values[chosen], places[chosen], float(limit)
        order = places.argsort()
        values, places = values[order], places[order]
        self._values, self._places, self._held = [values], [places], len(values)
        return values, places // max(self._width, 1), places % max(self._width, 1)
