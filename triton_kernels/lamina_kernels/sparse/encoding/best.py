"""The largest numbers of each row of a matrix that comes tile by tile; of equal ones those that come first."""

from __future__ import annotations

import torch
from torch import Tensor

ROOM = 64
"""Numbers that a row collects, at least, before the largest of all of them are chosen anew."""
GROUPS = 4
"""How many times k groups of columns have their largest number taken, to tell what is too small in the first tile."""
_WORD = 8


class Best:
    """For each row the k largest numbers so far, and those that came since they were chosen.

    Columns come in ascending order, so that a number which equals the smallest of the k is never taken for it. What is
    kept stands in the order of columns.

    Args:
        rows: How many rows.
        k: How many numbers of each.
        like: Gives dtype and device of the numbers.
        carried: Whether other numbers are kept in place of those that are compared.
    """

    def __init__(self, rows: int, k: int, like: Tensor, *, carried: bool = False) -> None:
        self._k, self._room = k, max(ROOM, k)
        self._values = like.new_full((rows, k + self._room), -torch.inf)
        self._ids = torch.zeros(rows, k + self._room, dtype=torch.int32, device=like.device)
        self._carried = torch.zeros_like(self._values) if carried else None
        self._fill = torch.zeros(rows, dtype=torch.int64, device=like.device)
        # What is not above it cannot be among the largest.
        self._limit: Tensor | None = None

    def offer(self, tile: Tensor, first: int, carried: Tensor | None = None) -> None:
        """Take the largest numbers of a tile, whose columns are counted from `first`."""
        if self._limit is None:
            self._limit = _limit(tile, self._k)
        row, column = entries(tile > self._limit[:, None])
        if len(row):
            other = None if carried is None else carried[row, column]
            self._take(row, (first + column).int(), tile[row, column], other)

    def settle(self) -> tuple[Tensor, Tensor]:
        """Choose the largest of all numbers; return them, or what is kept in their place, and their columns."""
        values, places = largest(self._values, self._k)
        self._ids[:, : self._k] = self._ids.gather(1, places)
        if self._carried is not None:
            self._carried[:, : self._k] = self._carried.gather(1, places)
        self._values.fill_(-torch.inf)
        self._values[:, : self._k] = values
        self._fill.zero_()
        if self._limit is not None:
            self._limit = torch.maximum(self._limit, values.amin(1))
        return (self._values if self._carried is None else self._carried)[:, : self._k], self._ids[:, : self._k]

    def _take(self, row: Tensor, ids: Tensor, values: Tensor, carried: Tensor | None) -> None:
        """Collect numbers, which come in the order of their rows, as many at a time as there is room for."""
        while len(row):
            assert self._limit is not None
            counts = row.bincount(minlength=len(self._fill))
            slot = torch.arange(len(row), device=row.device) + (self._fill + counts - counts.cumsum(0))[row]
            full = bool((self._fill + counts > self._room).any())
            if not full:
                self._put(row, slot, ids, values, carried)
                self._fill += counts
                return
            fits = slot < self._room
            self._put(row[fits], slot[fits], ids[fits], values[fits], None if carried is None else carried[fits])
            self.settle()
            left = ~fits & (values > self._limit[row])
            row, ids, values = row[left], ids[left], values[left]
            carried = None if carried is None else carried[left]

    def _put(self, row: Tensor, slot: Tensor, ids: Tensor, values: Tensor, carried: Tensor | None) -> None:
        at = row * self._values.shape[1] + self._k + slot
        self._values.view(-1)[at] = values
        self._ids.view(-1)[at] = ids
        if carried is not None and self._carried is not None:
            self._carried.view(-1)[at] = carried


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest numbers of each row in the order of their places, and these, [b, k]; no number is NaN."""
    rows = len(values)
    if k == 0 or rows == 0:
        return values[:, :k], torch.empty(rows, k, dtype=torch.int64, device=values.device)
    limit = values.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    chosen = values >= limit
    # Of several at the limit the first are taken.
    if int(chosen.sum()) > k * rows:
        above, equal = values > limit, values == limit
        chosen = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    places = chosen.nonzero()[:, 1].view(rows, k)
    return values.gather(1, places), places


def entries(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of what is True, [s] each, in their order; most is False, and looked at by eights."""
    columns = mask.shape[1]
    if columns % _WORD:
        mask = torch.nn.functional.pad(mask, (0, _WORD - columns % _WORD))
        columns = mask.shape[1]
    words = mask.view(-1).view(torch.int64).nonzero()[:, 0]
    at, member = mask.view(-1, _WORD).index_select(0, words).nonzero().unbind(1)
    places = words[at] * _WORD + member
    rows = places.div(columns, rounding_mode="floor")
    return rows, places - rows * columns


def _limit(tile: Tensor, k: int) -> Tensor:
    """Return for each row a number that at least k others of the first tile are above."""
    rows, columns = tile.shape
    if columns < k:
        return tile.new_full((rows,), -torch.inf)
    group = max(1, columns // (GROUPS * k))
    groups = columns // group
    # Neighbors belong to different groups, so that the maxima are taken of many at a time.
    highest = tile[:, : groups * group].unflatten(1, (group, groups)).amax(1)
    limit = highest.topk(k, dim=1, sorted=False).values.amin(1)
    return torch.nextafter(limit, torch.full_like(limit, -torch.inf))
