"""The largest numbers of a whole matrix that comes tile by tile; of equal ones those that stand first, rows first."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding.best import entries

SPARE = 2
"""How often the numbers that are kept fit into the pool before the largest are chosen anew."""


class Pool:
    """The `count` largest numbers so far, and those that came since they were chosen.

    Tiles may come in any order: what equals the smallest of the largest is taken too, and its place decides.

    Args:
        count: How many numbers, at least 1.
        like: Gives dtype and device of the numbers.
    """

    def __init__(self, count: int, like: Tensor) -> None:
        self._count = count
        self._values = [like.new_empty(0)]
        self._places = [torch.empty(0, dtype=torch.int64, device=like.device)]
        self._held = 0
        # What is below it cannot be among the largest.
        self._limit = -torch.inf

    def offer(self, tile: Tensor, first: int, width: int) -> None:
        """Take the largest numbers of a tile.

        Args:
            tile: [r, c].
            first: Where its first number stands in the matrix, rows first.
            width: How many columns the matrix has.
        """
        if self._limit == -torch.inf and tile.numel() > self._count:
            self._limit = float(_smallest_of_largest(tile.flatten(), self._count))
        row, column = entries(tile >= self._limit)
        self._values.append(tile[row, column])
        self._places.append(first + row * width + column)
        self._held += len(row)
        if self._held > SPARE * self._count:
            self.settle()

    def settle(self) -> tuple[Tensor, Tensor]:
        """Choose the largest of all numbers; return them and their places, which ascend."""
        values, places = torch.cat(self._values), torch.cat(self._places)
        if len(values) > self._count:
            limit = _smallest_of_largest(values, self._count)
            chosen = values > limit
            equal = (values == limit).nonzero()[:, 0]
            first = places[equal].argsort()[: self._count - int(chosen.sum())]
            chosen[equal[first]] = True
            values, places, self._limit = values[chosen], places[chosen], float(limit)
        order = places.argsort()
        values, places = values[order], places[order]
        self._values, self._places, self._held = [values], [places], len(values)
        return values, places


def _smallest_of_largest(values: Tensor, count: int) -> Tensor:
    return values.topk(count, sorted=False).values.amin()
