"""Linear CKA as a state that is fed blocks of rows and merged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lamina.errors import SchemaError
from lamina.rows.centering import center
from lamina.similarity.moments import Moments, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.rows.aligned import Block

PAIRS = {"xx": (0, 0), "yy": (1, 1), "xy": (0, 1)}


class LinearState:
    """Moments of x with itself, of y with itself, and of x with y, for every bucket of groups.

    Feed it with `update`, in any number of processes, each the rows of other groups; add with `merge`, in any order.

    Args:
        centers: What is subtracted from the rows of x and of y before any product, float64 [dx] and [dy]. The result
            does not depend on it, but its rounding does: give the means.
        sizes: int64 [groups], rows of each group.
        buckets: int64 [groups], the bucket of each group.
    """

    def __init__(self, centers: tuple[Tensor, Tensor], sizes: np.ndarray, buckets: np.ndarray, count: int) -> None:
        self._centers, self._sizes, self._buckets = centers, sizes, buckets
        u = _size_of_all(sizes)
        widths = [len(center) for center in centers]
        self.moments: Mapping[str, Moments] = {
            pair: Moments.zeros(widths[i], widths[j], buckets=count, u=u) for pair, (i, j) in PAIRS.items()
        }
        self.rows = np.zeros((count, 4))
        self._open: _Group | None = None

    @staticmethod
    def bytes_of(widths: tuple[int, int], sizes: np.ndarray) -> int:
        """Return the memory of one bucket."""
        u = _size_of_all(sizes)
        return sum(Moments.bytes_of(widths[i], widths[j], u) for i, j in PAIRS.values())

    def update(self, block: Block) -> None:
        """Add rows; those of a group one after another, through one state."""
        x = center(block.x, self._centers[0])
        y = x if block.y is block.x else center(block.y, self._centers[1])
        starts = np.flatnonzero(np.diff(block.codes, prepend=-1))
        lengths = np.diff(starts, append=block.codes.size)
        codes = block.codes[starts]
        whole = lengths == self._sizes[codes]
        for at in np.flatnonzero(~whole):
            rows = slice(int(starts[at]), int(starts[at] + lengths[at]))
            self._continue(int(codes[at]), x[rows], y[rows])
        if whole.any():
            self._add(x, y, starts[whole], codes[whole])

    def _add(self, x: Tensor, y: Tensor, starts: np.ndarray, codes: np.ndarray) -> None:
        """Add whole groups, ordered by bucket and size so that equal ones stand together."""
        order = np.lexsort((self._sizes[codes], self._buckets[codes]))
        starts, codes = starts[order], codes[order]
        sizes = self._sizes[codes]
        ends = np.cumsum(sizes)
        rows = np.repeat(starts - (ends - sizes), sizes) + np.arange(int(ends[-1]))
        if rows.size != len(x) or (np.diff(rows) != 1).any():
            same = x is y
            x = x[torch.from_numpy(rows)]
            y = x if same else y[torch.from_numpy(rows)]
        lengths, of = torch.from_numpy(sizes), torch.from_numpy(self._buckets[codes])
        first = Side.of(x, lengths)
        sides = first, first if x is y else Side.of(y, lengths)
        for pair, (i, j) in PAIRS.items():
            self.moments[pair].add(sides[i], sides[j], lengths, of)
        np.add.at(self.rows, self._buckets[codes], sizes[:, None].astype(float) ** np.arange(1, 5))

    def products(self, pair: str) -> np.ndarray:
        """Return the sums of (x_i·x_j)(y_i·y_j) over rows i and j of each two buckets, [buckets, buckets]."""
        each = self.moments[pair].c[:, 0].flatten(1)
        return (each @ each.T).numpy()

    def _continue(self, code: int, x: Tensor, y: Tensor) -> None:
        """Add a piece of a group."""
        size, bucket = int(self._sizes[code]), int(self._buckets[code])
        if self._open is None:
            self._open = _Group(code, x.shape[1], y.shape[1])
        if self._open.code != code:
            raise SchemaError("the rows of a group do not stand together", hint="order them by group")
        if self._open.add(x, y) < size:
            return
        for pair, (i, j) in PAIRS.items():
            sums = self._open.sums
            self.moments[pair].add_group(self._open.products[pair], sums[i], sums[j], size, bucket)
        self.rows[bucket] += float(size) ** np.arange(1, 5)
        self._open = None

    def merge(self, other: LinearState) -> None:
        """Add what another state was fed.

        Raises:
            SchemaError: One of them is in the middle of a group.
        """
        if self._open or other._open:
            raise SchemaError("a group is not complete", hint="feed all rows of a group to one state")
        self.moments = {pair: mine.merge(other.moments[pair]) for pair, mine in self.moments.items()}
        self.rows = self.rows + other.rows


def _size_of_all(sizes: np.ndarray) -> int | None:
    """Return the size that all groups have, or None."""
    return int(sizes[0]) if sizes.size and (sizes == sizes[0]).all() else None


class _Group:
    """A group that is read in pieces."""

    def __init__(self, code: int, dx: int, dy: int) -> None:
        self.code, self._seen, widths = code, 0, (dx, dy)
        self.sums = [torch.zeros(width, dtype=torch.float64) for width in widths]
        self.products = {pair: torch.zeros(widths[i], widths[j], dtype=torch.float64) for pair, (i, j) in PAIRS.items()}

    def add(self, x: Tensor, y: Tensor) -> int:
        """Add rows and return how many there are now."""
        sides = (x, y)
        for side, whole in zip(sides, self.sums, strict=True):
            whole += side.sum(0, dtype=torch.float64)
        for pair, (i, j) in PAIRS.items():
            self.products[pair] += (sides[i].T @ sides[j]).double()
        self._seen += len(x)
        return self._seen
