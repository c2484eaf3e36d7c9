"""The sums that HSIC needs for any kernel, from blocks of kernel values that are never kept.

A panel is some whole groups against all rows. Its kernel values arrive block by block from
`lamina_kernels.gram.hsic_sums`, already summed over the columns of a group; what the panel leaves behind are sums over
its rows, split by the bucket of the row and by the bucket that is left out. They add over panels, so that panels can be
computed anywhere, in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lamina.similarity.double_centering import Margins
from lamina.similarity.independence import Sums
from lamina.similarity.linear import PAIRS

if TYPE_CHECKING:
    from lamina_kernels.gram import HsicSums

PAIRWISE = ("p00", "p10", "p20", "p11", "tau00", "tau10", "tau01", "total_x", "total_y", "groups")
ROWWISE = ("rho0", "rho1", "rho_x", "rho_y", "margins")


class Columns(NamedTuple):
    """What the columns of a block are summed into: groups, or buckets where every row is a group of its own.

    Attributes:
        ids: int64 [rows], the group or bucket of each row.
        buckets: float64 [ids, buckets], 1 where a group lies in a bucket.
        u: float64 [ids], the size of each group.
        single: Whether the ids are buckets.
    """

    ids: Tensor
    buckets: Tensor
    u: Tensor
    single: bool

    @staticmethod
    def of(codes: np.ndarray, sizes: np.ndarray, buckets: np.ndarray, count: int) -> Columns:
        """Return the columns of whole groups, whose rows stand together."""
        if int(sizes.max(initial=1)) == 1:
            return Columns(
                torch.from_numpy(buckets[codes]), torch.eye(count).double(), torch.ones(count).double(), True
            )
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        here = codes[starts]
        ids = np.repeat(np.arange(here.size), sizes[here])
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(buckets[here]), count).double()
        return Columns(torch.from_numpy(ids), one_hot, torch.from_numpy(sizes[here]).double(), False)


class PanelState:
    """The sums of HSIC(x, x), HSIC(y, y) and HSIC(x, y), bucket by bucket; states of different panels add.

    Attributes:
        pairwise: Sums over a row and a column, [buckets of the row, buckets of the column], by pair and name.
        rowwise: Sums over rows of products of row sums, [buckets of the row, what is left out of the row sums:
            each bucket, and at last nothing], by pair and name.
        margins: What centers the products of kernel values, by pair.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.pairwise = {(pair, name): torch.zeros(count, count).double() for pair in PAIRS for name in PAIRWISE}
        self.rowwise = {(pair, name): torch.zeros(count, count + 1).double() for pair in PAIRS for name in ROWWISE}
        self.margins = {pair: Margins.zeros(count) for pair in PAIRS}

    def merge(self, other: PanelState) -> None:
        """Add the sums of other panels."""
        for mine, theirs in ((self.pairwise, other.pairwise), (self.rowwise, other.rowwise)):
            for key, value in theirs.items():
                mine[key] += value
        for pair, margins in other.margins.items():
            self.margins[pair].add(margins)

    def sums(self, pair: str) -> Sums:
        """Return the sums over all rows, and over those outside of each bucket, [1 + buckets]."""
        over = {name: _over_pairs(self.pairwise[pair, name]) for name in PAIRWISE}
        return Sums(**over, **{name: _over_rows(self.rowwise[pair, name]) for name in ROWWISE})

    def products(self, pair: str) -> np.ndarray:
        """Return the sums of K_ij L_ij over rows of each two buckets, K and L centered, [buckets, buckets]."""
        sums = (self.pairwise[pair, name] for name in ("p00", "total_x", "total_y"))
        return self.margins[pair].centered(*sums).numpy()


def _over_pairs(matrix: Tensor) -> np.ndarray:
    outside = matrix.sum() - matrix.sum(0) - matrix.sum(1) + matrix.diagonal()
    return torch.cat([matrix.sum()[None], outside]).numpy()


def _over_rows(matrix: Tensor) -> np.ndarray:
    each, nothing = matrix[:, :-1], matrix[:, -1]
    return torch.cat([nothing.sum()[None], each.sum(0) - each.diagonal()]).numpy()


class Panel:
    """Some whole groups, while they meet all columns.

    Args:
        state: What the panel is added to.
        rows: The panel's own rows, as columns.
        of_rows: int64 [rows], the bucket of each row.
        sizes: int64 [rows], the size of each row's group.
        n: Rows of all panels.
        within: Whether pairs within a group count (they do for the biased HSIC).
    """

    def __init__(
        self, state: PanelState, rows: Columns, of_rows: Tensor, sizes: Tensor, *, n: int, within: bool
    ) -> None:
        count = rows.buckets.shape[1]
        self._state, self._rows, self._within = state, rows, within
        one_hot = torch.nn.functional.one_hot(of_rows, count).double()
        u = sizes.double()[:, None]
        self._of_rows = [(one_hot * u**power).T for power in range(3)]
        self._others = (n - u).clamp(min=1)
        shape = len(of_rows), count
        # sums over columns by bucket, and the same with each column weighted by the size of its group
        self._sums = {side: torch.zeros(2, *shape, dtype=torch.float64) for side in "xy"}

    def meet(self, columns: Columns, block: HsicSums, *, diagonal: bool) -> None:
        """Add the kernel values between the panel and a block of columns, which are the panel itself if `diagonal`."""
        width = len(columns.buckets)
        products = {"xx": block.square_x, "yy": block.square_y, "xy": block.product}
        products = {pair: _padded(matrix, width) for pair, matrix in products.items()}
        sums = {"x": _padded(block.sums_x, width), "y": _padded(block.sums_y, width)}
        if diagonal and not columns.single and not self._within:
            own = (torch.arange(len(columns.ids)), columns.ids)
            for matrix in (*products.values(), *sums.values()):
                matrix[own] = 0
        for side, matrix in sums.items():
            self._sums[side] += torch.stack([matrix @ columns.buckets, (matrix * columns.u) @ columns.buckets])
        h = self._of_rows
        for pair, product in products.items():
            r, s = sums[pair[0]], sums[pair[1]]
            # where every row is a group, the sums over a group are the kernel values themselves
            of_groups = product if columns.single else r * s
            between = product if columns.single else self._by_group(r) * self._by_group(s)
            of_between = h[0] if columns.single else self._rows.buckets.T
            plain, weighted = product @ columns.buckets, (product * columns.u) @ columns.buckets
            tau, tau_weighted = of_groups @ columns.buckets, (of_groups * columns.u) @ columns.buckets
            self._add("pairwise", pair, "p00", h[0] @ plain)
            self._add("pairwise", pair, "p10", h[1] @ plain)
            self._add("pairwise", pair, "p20", h[2] @ plain)
            self._add("pairwise", pair, "p11", h[1] @ weighted)
            self._add("pairwise", pair, "tau00", h[0] @ tau)
            self._add("pairwise", pair, "tau10", h[1] @ tau)
            self._add("pairwise", pair, "tau01", h[0] @ tau_weighted)
            self._add("pairwise", pair, "total_x", h[0] @ (r @ columns.buckets))
            self._add("pairwise", pair, "total_y", h[0] @ (s @ columns.buckets))
            self._add("pairwise", pair, "groups", of_between @ (between @ columns.buckets))

    def end(self) -> None:
        """Add what needs the whole row sums, once all columns were met."""
        h, without = self._of_rows, {side: _left_out(sums) for side, sums in self._sums.items()}
        for pair in PAIRS:
            (r, r_weighted), (s, s_weighted) = without[pair[0]], without[pair[1]]
            self._add("rowwise", pair, "rho0", h[0] @ (r * s))
            self._add("rowwise", pair, "rho1", h[1] @ (r * s))
            self._add("rowwise", pair, "rho_x", h[0] @ (r_weighted * s))
            self._add("rowwise", pair, "rho_y", h[0] @ (r * s_weighted))
            if self._rows.single:
                self._add("rowwise", pair, "margins", h[0] @ (r * s))
            else:
                self._add("rowwise", pair, "margins", self._rows.buckets.T @ (self._by_group(r) * self._by_group(s)))
            self._state.margins[pair].add(
                Margins.of(self._sums[pair[0]][0], self._sums[pair[1]][0], self._others, h[0])
            )

    def _by_group(self, rows: Tensor) -> Tensor:
        sums = torch.zeros(len(self._rows.buckets), rows.shape[1], dtype=torch.float64)
        return sums.index_add_(0, self._rows.ids, rows)

    def _add(self, kind: str, pair: str, name: str, value: Tensor) -> None:
        getattr(self._state, kind)[pair, name] += value


def _left_out(sums: Tensor) -> Tensor:
    """Return row sums without each bucket, and at last with all of them, [..., rows, buckets + 1]."""
    whole = sums.sum(-1, keepdim=True)
    return torch.cat([whole - sums, whole], -1)


def _padded(matrix: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(matrix, (0, width - matrix.shape[1])) if matrix.shape[1] < width else matrix.clone()
