"""The sums that HSIC with linear kernels needs, from d x d moments: one pass over the rows, memory flat in n.

Every sum of `lamina.similarity.independence` is a polynomial in moments that add over groups. With X_g and Y_g the sums
of a group's rows, C_g = sum over its rows of x yᵀ, and a power of the group's size u before each:

    C_a = sum u^a C_g        D_a = sum u^a X_g Y_gᵀ        X_a = sum u^a X_g (and Y_a)
    V_a = sum u^a C_g Y_g    W_a = sum u^a C_gᵀ X_g        E = sum |Y_g|^2 X_g    F = sum |X_g|^2 Y_g
    q_a = sum u^a |C_g|^2    t_a = sum u^a X_gᵀ C_g Y_g    e = sum |X_g|^2 |Y_g|^2

    P_ab = <C_a, C_b> - q_(a+b)                       tau_ab = <C_a, D_b> - t_(a+b)
    rho_a = X_0ᵀ C_a Y_0 - X_0·V_a - W_a·Y_0 + t_a        rho_x, rho_y: the same with X_1 C_0 Y_0 and X_0 C_0 Y_1
    sum A = |X_0|^2 - sum |X_g|^2                     sum_gh A_gh B_gh = <D_0, D_0> - e
    sum_g (sum_h A_gh) (sum_h B_gh) = X_0ᵀ D_0 Y_0 - X_0·E - F·Y_0 + e

(<.,.> is the sum of the elementwise product). Since they add over groups, what is left when some groups are taken out
is the whole minus their moments: a delete-a-group jackknife needs no second look at the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor


@dataclass
class Moments:
    """Moments of paired rows, in float64, with a leading axis of buckets of groups.

    Attributes:
        c: C_a, [buckets, powers, dx, dy]: three powers, or one where all groups have the size `u`.
        d: D_a, [buckets, 2 or 1, dx, dy].
        x: X_0 and X_1, [buckets, 2, dx]; `y` likewise.
        v: V_0 and V_1, [buckets, 2, dx]; `w` [buckets, 2, dy].
        e: E, [buckets, dx]; `f` [buckets, dy].
        scalars: q_0, q_1, q_2, t_0, t_1, e, sum |X_g|^2, sum |Y_g|^2, [buckets, 8].
        u: The size of all groups, or None.
    """

    c: Tensor
    d: Tensor
    x: Tensor
    y: Tensor
    v: Tensor
    w: Tensor
    e: Tensor
    f: Tensor
    scalars: Tensor
    u: int | None

    @staticmethod
    def zeros(dx: int, dy: int, *, buckets: int, u: int | None) -> Moments:
        """Return the moments of no rows."""
        shapes = {"c": (1 if u else 3, dx, dy), "d": (1 if u else 2, dx, dy), "x": (2, dx), "y": (2, dy)}
        shapes |= {"v": (2, dx), "w": (2, dy), "e": (dx,), "f": (dy,), "scalars": (8,)}
        each = {name: torch.zeros(buckets, *shape, dtype=torch.float64) for name, shape in shapes.items()}
        if u == 1:
            each["d"] = each["c"]  # every row is a group: they are the same
        return Moments(**each, u=u)

    @staticmethod
    def bytes_of(dx: int, dy: int, u: int | None) -> int:
        """Return the memory of one bucket."""
        return 8 * dx * dy * (1 if u == 1 else 2 if u else 5)

    def add(self, x: Side, y: Side, sizes: Tensor, buckets: Tensor) -> None:
        """Add whole groups.

        Args:
            x: The rows of one side.
            y: The rows of the other.
            sizes: int64 [groups], rows of each group; the rows of a group stand together.
            buckets: int64 [groups], ascending.
        """
        u, both = sizes.double(), x.norms * y.norms
        q = within_norms(x.rows, y.rows, sizes)
        t = torch.zeros_like(q).index_add_(0, x.group, (x.along * y.along).double())
        terms = torch.stack([q, u * q, u * u * q, t, u * t, both, x.norms, y.norms], 1)
        self.scalars.index_add_(0, buckets, terms)
        ends = torch.cumsum(sizes, 0)
        present, counts = torch.unique_consecutive(buckets, return_counts=True)
        last = 0
        for b, count in zip(present.tolist(), counts.tolist(), strict=True):
            groups = slice(last, last + count)
            last += count
            rows = slice(int(ends[groups.start] - sizes[groups.start]), int(ends[groups.stop - 1]))
            of_groups = sizes[groups].to(x.rows.dtype)
            of_rows = of_groups.repeat_interleave(sizes[groups])
            self._add_products(self.c[b], x.rows[rows], y.rows[rows], of_rows)
            if self.d is not self.c:
                self._add_products(self.d[b], x.sums[groups], y.sums[groups], of_groups)
            self.v[b] += _weighted(y.along[rows], of_rows) @ x.rows[rows]
            self.w[b] += _weighted(x.along[rows], of_rows) @ y.rows[rows]
            self.x[b] += _weighted(torch.ones_like(of_groups), of_groups) @ x.sums[groups]
            self.y[b] += _weighted(torch.ones_like(of_groups), of_groups) @ y.sums[groups]
            self.e[b] += y.norms[groups].to(x.sums.dtype) @ x.sums[groups]
            self.f[b] += x.norms[groups].to(y.sums.dtype) @ y.sums[groups]

    def add_group(self, c: Tensor, sum_x: Tensor, sum_y: Tensor, size: int, bucket: int) -> None:
        """Add one group by its own C_g, X_g and Y_g, float64: for a group that is read in pieces."""
        v, w = c @ sum_y, c.T @ sum_x
        q, t = c.square().sum(), sum_x @ v
        norm_x, norm_y = sum_x @ sum_x, sum_y @ sum_y
        terms = [q, size * q, size * size * q, t, size * t, norm_x * norm_y, norm_x, norm_y]
        self.scalars[bucket] += torch.stack(terms)
        for power in range(self.c.shape[1]):
            self.c[bucket, power].add_(c, alpha=float(size) ** power)
        for power in range(0 if self.d is self.c else self.d.shape[1]):
            self.d[bucket, power].addr_(sum_x, sum_y, alpha=float(size) ** power)
        for whole, part in ((self.x, sum_x), (self.y, sum_y), (self.v, v), (self.w, w)):
            whole[bucket] += torch.stack([part, size * part])
        self.e[bucket] += norm_y * sum_x
        self.f[bucket] += norm_x * sum_y

    def _add_products(self, into: Tensor, x: Tensor, y: Tensor, u: Tensor) -> None:
        if len(into) == 1 or bool((u == u[0]).all()):
            product = x.T @ y
            for power, whole in enumerate(into):
                whole.add_(product, alpha=float(u[0]) ** power)
            return
        # a product a size where they are few, else a product a power
        cuts = [0, *(torch.nonzero(torch.diff(u)).flatten() + 1).tolist(), len(u)]
        if len(u) > 128 * len(cuts):
            for start, stop in pairwise(cuts):
                self._add_products(into, x[start:stop], y[start:stop], u[start:stop])
            return
        for power, whole in enumerate(into):
            whole += x.T @ (y * (u**power)[:, None] if power else y)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the groups of both."""
        return self._map(lambda name: getattr(self, name) + getattr(other, name))

    def total(self) -> Moments:
        """Return the moments of all buckets together, as one bucket."""
        return self._map(lambda name: getattr(self, name).sum(0, keepdim=True))

    def without(self, left_out: Moments, buckets: slice) -> Moments:
        """Return these moments of one bucket without those of each of some buckets of `left_out`, one a bucket."""
        return self._map(lambda name: getattr(self, name) - getattr(left_out, name)[buckets])

    def _map(self, value: Callable[[str], Tensor]) -> Moments:
        each = {field.name: value(field.name) for field in fields(self)[:-1] if field.name != "d"}
        return Moments(**each, d=each["c"] if self.d is self.c else value("d"), u=self.u)


@dataclass(frozen=True)
class Side:
    """One matrix of a block, and what its groups sum to.

    Attributes:
        rows: [rows, d], centered, float32 or float64; the rows of a group stand together.
        group: int64 [rows], the place of each row's group in the block.
        sums: [groups, d], X_g.
        along: [rows], x_i·X_g for the row's own group.
        norms: float64 [groups], |X_g|^2.
    """

    rows: Tensor
    group: Tensor
    sums: Tensor
    along: Tensor
    norms: Tensor

    @staticmethod
    def of(rows: Tensor, sizes: Tensor) -> Side:
        """Sum the rows of each group."""
        group = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        if len(sizes) == len(rows):
            squares = torch.linalg.vecdot(rows, rows)
            return Side(rows, group, rows, squares, squares.double())
        sums = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, group, rows)
        along = torch.linalg.vecdot(rows, sums[group])
        return Side(rows, group, sums, along, torch.linalg.vecdot(sums, sums).double())


def _weighted(values: Tensor, u: Tensor) -> Tensor:
    return torch.stack([values, values * u])


def within_norms(x: Tensor, y: Tensor, sizes: Tensor) -> Tensor:
    """Return |sum over a group's rows of x yᵀ|^2 for every group, float64 [groups].

    Equal to the sum of (x_i·x_j)(y_i·y_j) over pairs of its rows, which is cheaper for small groups.
    """
    norms = torch.empty(len(sizes), dtype=torch.float64)
    starts = torch.cumsum(sizes, 0) - sizes
    for size in torch.unique(sizes).tolist():
        which = torch.nonzero(sizes == size).flatten()
        if size == 1:
            rows = slice(None) if len(which) == len(x) else starts[which]
            squares = torch.linalg.vecdot(x[rows], x[rows]) * torch.linalg.vecdot(y[rows], y[rows])
            norms[which] = squares.double()
            continue
        for some in which.split(max(1, 2**22 // (size * max(size, x.shape[1], y.shape[1])))):
            rows = (starts[some][:, None] + torch.arange(size)).flatten()
            xs, ys = x[rows].view(len(some), size, -1), y[rows].view(len(some), size, -1)
            if size * (xs.shape[2] + ys.shape[2]) < xs.shape[2] * ys.shape[2]:
                products = (xs @ xs.mT) * (ys @ ys.mT)
            else:
                products = (xs.mT @ ys).square()
            norms[some] = products.double().sum((1, 2))
    return norms
