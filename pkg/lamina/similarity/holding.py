"""Rows that are held in memory in the order of their buckets, with their sums, so that many pairs share both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lamina.rows.centering import BLOCK
from lamina.rows.groups import BUCKETS
from lamina.similarity.moments import within_norms

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.rows.groups import Groups

PANEL = 512
"""Rows of a panel, unless a group has more."""
_AT_ONCE = 512
"""Rows that are added up at a time: what is converted to float64 stays in the cache, at a tenth of the time."""


@dataclass(frozen=True)
class Layout:
    """The order in which rows are held: by bucket, by the size of their group, by group.

    Attributes:
        places: int64 [n], where each row goes.
        keys: What the buckets are called.
        codes: int64 [n], the group of each held row, counted in the order in which they are held.
        sizes: int64 [groups], in that order.
        rows: The rows of each bucket.
        groups: The groups of each bucket.
    """

    places: np.ndarray
    keys: list[object]
    codes: np.ndarray
    sizes: np.ndarray
    rows: list[slice]
    groups: list[slice]

    @staticmethod
    def of(groups: Groups) -> Layout:
        """Lay out rows by their groups."""
        buckets, keys = groups.buckets()
        order = np.lexsort((np.arange(len(groups)), groups.sizes, buckets))
        place_of = np.empty_like(order)
        place_of[order] = np.arange(order.size)
        codes = place_of[groups.codes]
        held = np.argsort(codes, kind="stable")
        places = np.empty_like(held)
        places[held] = np.arange(held.size)
        sizes, of = groups.sizes[order], buckets[order]
        in_groups = np.searchsorted(of, np.arange(len(keys) + 1))
        in_rows = np.concatenate([[0], np.cumsum(sizes)])[in_groups]
        slices = [[slice(start, stop) for start, stop in pairwise(ends.tolist())] for ends in (in_rows, in_groups)]
        return Layout(places, keys, codes[held], sizes, *slices)

    def __len__(self) -> int:
        return self.codes.size

    @property
    def size(self) -> int | None:
        """The size that all groups have, or None."""
        return int(self.sizes[0]) if (self.sizes == self.sizes[0]).all() else None

    @property
    def alone(self) -> bool:
        """Whether each bucket is one group."""
        return len(self.keys) == self.sizes.size

    @cached_property
    def u(self) -> Tensor:
        """float64 [n], the size of each row's group."""
        return torch.from_numpy(self.sizes[self.codes].astype(float))

    @cached_property
    def one_hot(self) -> Tensor:
        """float64 [buckets, n], 1 where a row is in a bucket."""
        found = torch.zeros(len(self.keys), len(self), dtype=torch.float64)
        for bucket, rows in zip(found, self.rows, strict=True):
            bucket[rows] = 1
        return found

    @cached_property
    def powers(self) -> np.ndarray:
        """Nothing, and then for each bucket the sums over its groups of size^1 to size^4, [1 + buckets, 4]."""
        each = self.sizes[:, None].astype(float) ** np.arange(1, 5)
        return np.stack([np.zeros(4), *(each[groups].sum(0) for groups in self.groups)])

    @cached_property
    def panels(self) -> list[tuple[int, slice, slice]]:
        """Pieces of about `PANEL` rows, of whole groups and one bucket: the bucket, the rows, and the groups."""
        ends, found = np.concatenate([[0], np.cumsum(self.sizes)]), []
        for bucket, (rows, groups) in enumerate(zip(self.rows, self.groups, strict=True)):
            first, count = groups.start, rows.stop - rows.start
            most = -(-count // -(-count // PANEL))
            while first < groups.stop:
                last = int(np.searchsorted(ends, ends[first] + most, side="right")) - 1
                last = min(max(last, first + 1), groups.stop)
                found.append((bucket, slice(int(ends[first]), int(ends[last])), slice(first, last)))
                first = last
        return found

    def group_sums(self, rows: Tensor) -> Tensor:
        """Return the sums over the rows of each group, along the first axis; the rows themselves where each is one."""
        if self.size == 1:
            return rows
        sums = rows.new_zeros(self.sizes.size, *rows.shape[1:])
        return sums.index_add_(0, torch.from_numpy(self.codes), rows)


class Held:
    """One matrix, centered, with the sums over rows that all of its pairs need.

    Attributes:
        x: [n, d], in the order of the layout.
        bandwidth: That of an RBF kernel; None for the linear one.
        factors: Two matrices whose product is the kernel's, or its exponent.
        sums: [groups, d], X_g.
        along: [n], x_i·X_g for the row's own group.
        norms: float64 [groups], |X_g|^2.
        r: float64 [1 + buckets, n], the sums of x_i·x_j over all rows j of other groups, and over those outside of each
            bucket, with nothing for the rows of the bucket itself; for the biased HSIC also over the row's own group.
        r_weighted: The same with the size of j's group before each; None where all groups have one size.
    """

    def __init__(self, x: Tensor, layout: Layout, *, debiased: bool, bandwidth: float | None = None) -> None:
        self.x, self.bandwidth, self._layout, self._debiased = x, bandwidth, layout, debiased
        self.factors = x, x
        if bandwidth is not None:
            # the exponent is one product of matrices: rows (2c x, -c|x|^2, 1) and (y, 1, -c|y|^2) give -c|x - y|^2
            scale = 0.5 / bandwidth**2
            one, squares = torch.ones_like(x[:, :1]), -scale * torch.linalg.vecdot(x, x)[:, None]
            self.factors = torch.cat([2 * scale * x, squares, one], 1), torch.cat([x, one, squares], 1)
            return
        self.sums = layout.group_sums(x)
        codes = torch.from_numpy(layout.codes)
        single = layout.size == 1
        self.along = torch.linalg.vecdot(x, x if single else self.sums[codes]).double()
        self.norms = self.along if single else torch.linalg.vecdot(self.sums, self.sums).double()
        own = self.along if debiased else torch.zeros_like(self.along)
        self.r = self._outside(layout, torch.ones(1, dtype=torch.float64), own)
        equal = layout.size is not None or not debiased
        self.r_weighted = None if equal else self._outside(layout, layout.u, layout.u * own)

    def take(self, r: Tensor, weighted: Tensor | None) -> None:
        """Take the row sums of a kernel that is no product of features: over the rows of each bucket, [buckets, n]."""
        self.r = _left_out(r, self._layout)
        self.r_weighted = None if weighted is None else _left_out(weighted, self._layout)

    def _outside(self, layout: Layout, weights: Tensor, own: Tensor) -> Tensor:
        # a product of the whole in float64 would cost as much as that with the matrices themselves
        weighted = self.x if len(weights) == 1 else self.x * weights.to(self.x.dtype)[:, None]
        of_buckets = torch.stack([weighted[rows].sum(0, dtype=torch.float64) for rows in layout.rows])
        whole = of_buckets.sum(0, keepdim=True)
        left = torch.cat([whole, whole - of_buckets]).to(self.x.dtype)
        return _without_own((left @ self.x.T).double() - own, layout)

    @cached_property
    def r_groups(self) -> Tensor:
        """float64 [1 + buckets, groups], `r` summed over the rows of each group."""
        return self._layout.group_sums(self.r.T.contiguous()).T.contiguous()

    @property
    def between(self) -> Tensor:
        """float64 [n, buckets], the sums over the rows of each bucket that are in other groups."""
        found = _without_own(torch.cat([self.r[:1], self.r[:1] - self.r[1:]]), self._layout)[1:]
        for bucket, rows in enumerate(self._layout.rows):
            found[bucket, rows] = self.r[0, rows] - found[:, rows].sum(0)
        return found.T

    @cached_property
    def grams(self) -> Tensor | None:
        """x_i·x_j of the pairs of rows of each group, one group after another; None where the groups are too large."""
        squares = np.square(self._layout.sizes)
        if int(squares.sum()) > self.x.numel():
            return None
        found, row = [], 0
        for size, count in _runs(self._layout.sizes):
            rows = self.x[row : row + size * count].view(count, size, -1)
            found.append((rows @ rows.mT).flatten())
            row += size * count
        return torch.cat(found)

    def within(self, other: Held) -> Tensor:
        """Return the sums of (x_i·x_j)(y_i·y_j) over the pairs of rows of each group, float64 [groups]."""
        sizes = self._layout.sizes
        if self.grams is None or other.grams is None:
            return within_norms(self.x, other.x, torch.from_numpy(sizes))
        starts = np.cumsum(np.square(sizes)) - np.square(sizes)
        return torch.from_numpy(np.add.reduceat((self.grams * other.grams).double().numpy(), starts))

    @staticmethod
    def bytes_of(n: int, d: int, itemsize: int = 4, largest: int = 1) -> int:
        """Return about the memory that rows take while they are held, the largest group having so many."""
        # rows of groups are kept with the sums and the inner products of each, or with factors; row sums twice
        numbers, sums = (1, 1) if largest == 1 else (3, 2)
        return n * (numbers * d * itemsize + sums * 8 * (2 + BUCKETS))


def _left_out(of_buckets: Tensor, layout: Layout) -> Tensor:
    whole = of_buckets.sum(0, keepdim=True)
    return _without_own(torch.cat([whole, whole - of_buckets]), layout)


def _without_own(found: Tensor, layout: Layout) -> Tensor:
    for bucket, rows in enumerate(layout.rows, 1):
        found[bucket, rows] = 0
    return found


def _runs(sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each size that comes several times in a row, and how often it does."""
    cuts = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), sizes.size]
    for start, stop in pairwise(cuts):
        yield int(sizes[start]), stop - start


@dataclass(frozen=True)
class Bandwidth:
    """An RBF kernel whose bandwidth is a multiple of the median distance between some rows.

    Attributes:
        multiple: Of that distance.
        sample: The places of these rows.
    """

    multiple: float
    sample: Tensor

    def of(self, x: Tensor) -> float | None:
        """Return the bandwidth for rows in the order of their layout; None if there is none."""
        rows = x[self.sample].double()
        found = self.multiple * (float(torch.pdist(rows).median()) if len(rows) > 1 else 1.0)
        return found if 1e-12 <= found <= 1e12 else None


def hold(
    rows: Rows,
    order: np.ndarray | None,
    layout: Layout,
    dtype: torch.dtype,
    *,
    debiased: bool,
    bandwidth: Bandwidth | None = None,
) -> Held | None:
    """Read rows, once and as they lie, and center them; None if one is not finite, or for want of a bandwidth.

    Args:
        rows: The rows.
        order: Their positions in the order of the groups, or None.
        layout: Where they go.
        dtype: The dtype of the arithmetic.
        debiased: See `Held`.
        bandwidth: For an RBF kernel; None for the linear one.
    """
    n, d = rows.shape
    places = layout.places
    if order is not None:
        places = np.empty_like(layout.places)
        places[order] = layout.places
    to = torch.from_numpy(places)
    x, total, step = torch.empty(n, d, dtype=dtype), torch.zeros(d, dtype=torch.float64), max(1024, BLOCK // max(d, 1))
    for start in range(0, n, step):
        block = rows.gather(range(start, min(start + step, n)))
        for piece in block.split(_AT_ONCE):
            total += piece.sum(0, dtype=torch.float64)
        x[to[start : start + step]] = block.to(dtype)
    if not bool(torch.isfinite(total).all()):
        return None
    x.sub_((total / n).to(dtype))
    chosen = None
    if bandwidth is not None and (chosen := bandwidth.of(x)) is None:
        return None
    return Held(x, layout, debiased=debiased, bandwidth=chosen)
