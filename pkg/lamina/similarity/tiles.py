"""Sums over pairs of rows from tiles of kernel values, for many matrices that are held.

A tile is some rows against some others. Its kernel values are made once for each matrix; the sums of all pairs of
matrices are then one product of the tiles with each other, laid out as vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lamina_kernels.tiles.inner import inner

if TYPE_CHECKING:
    from lamina.similarity.holding import Held, Layout

STRIP = 1024
"""Rows against which a panel's kernel values are made at a time, where panels are small."""


@dataclass(frozen=True)
class _Panel:
    """Some whole groups of a bucket.

    Attributes:
        bucket: Which.
        rows: Their rows.
        u: [rows], the size of each row's group.
        u_groups: [groups].
        of_groups: [rows, groups], 1 where a row is in a group.
    """

    bucket: int
    rows: slice
    u: Tensor
    u_groups: Tensor
    of_groups: Tensor

    @staticmethod
    def all_of(layout: Layout, dtype: torch.dtype) -> list[_Panel]:
        codes = torch.from_numpy(layout.codes)
        sizes = torch.from_numpy(layout.sizes).to(dtype)
        found = []
        for bucket, rows, groups in layout.panels:
            one_hot = (codes[rows, None] == torch.arange(groups.start, groups.stop)).to(dtype)
            found.append(_Panel(bucket, rows, layout.u[rows].to(dtype), sizes[groups], one_hot))
        return found


def tile_products(held: Sequence[Held], layout: Layout, *, debiased: bool) -> dict[str, Tensor]:
    """Return the sums of all pairs of matrices, [matrices, matrices, buckets, buckets] by name.

    They are over pairs of rows of different groups; for the biased HSIC over all.
    """
    sums = _Sums(len(held), layout, debiased=debiased)
    rbf = held[0].bandwidth is not None
    row_sums = _RowSums(len(held), layout, weighted=debiased and layout.size is None) if rbf else None
    panels = _Panel.all_of(layout, held[0].x.dtype)
    for first, a in enumerate(panels):
        for some in _strips(panels[first:]):
            columns = slice(some[0].rows.start, some[-1].rows.stop)
            strip = held[0].x.new_empty(len(held), len(a.u), columns.stop - columns.start)
            for each, into in zip(held, strip, strict=True):
                left, right = each.factors
                torch.mm(left[a.rows], right[columns].T, out=into)
            if rbf:
                strip.clamp_max_(0).exp_()
            for b in some:
                values = strip[:, :, b.rows.start - columns.start : b.rows.stop - columns.start]
                if a is b and debiased:
                    values.masked_fill_((a.of_groups @ a.of_groups.T).bool(), 0)
                sums.add(a, b, values.contiguous())
                if row_sums is not None:
                    row_sums.add(a, b, values)
    if row_sums is not None:
        row_sums.give(held)
    return sums.found


def _strips(panels: Sequence[_Panel]) -> Iterator[list[_Panel]]:
    """Put small panels together, so that a product makes the kernel values of many."""
    some: list[_Panel] = []
    for panel in panels:
        if some and panel.rows.stop - some[0].rows.start > STRIP:
            yield some
            some = []
        some.append(panel)
    yield some


class _RowSums:
    """Sums over the rows of each bucket, for each row of each matrix."""

    def __init__(self, matrices: int, layout: Layout, *, weighted: bool) -> None:
        shape = matrices, len(layout.keys), len(layout)
        self._plain = torch.zeros(shape, dtype=torch.float64)
        self._weighted = torch.zeros(shape, dtype=torch.float64) if weighted else None

    def add(self, a: _Panel, b: _Panel, values: Tensor) -> None:
        """Add the kernel values between the rows of two panels, both ways round unless they are one panel."""
        for rows, columns, along in ((a, b, values), (b, a, values.mT))[: 1 + (a is not b)]:
            self._plain[:, columns.bucket, rows.rows] += along.sum(2, dtype=torch.float64)
            if self._weighted is not None:
                self._weighted[:, columns.bucket, rows.rows] += (along @ columns.u).double()

    def give(self, held: Sequence[Held]) -> None:
        """Give each matrix its own."""
        for place, each in enumerate(held):
            each.take(self._plain[place], None if self._weighted is None else self._weighted[place])


class _Sums:
    """What tiles are added to."""

    def __init__(self, matrices: int, layout: Layout, *, debiased: bool) -> None:
        self._grouped = debiased and layout.size != 1
        self._unequal = debiased and layout.size is None
        names = ["p00"]
        names += ["tau00", "groups"] if self._grouped else []
        names += ["p10", "p20", "p11", "tau10", "tau01"] if self._unequal else []
        count = len(layout.keys)
        self.found = {name: torch.zeros(matrices, matrices, count, count, dtype=torch.float64) for name in names}

    def add(self, a: _Panel, b: _Panel, values: Tensor) -> None:
        """Add the kernel values between the rows of two panels, both ways round unless they are one panel."""
        self._add_both("p00", a, b, values, values)
        if self._unequal:
            self._add_both("p11", a, b, values * (a.u[:, None] * b.u), values)
            for weight, rows, columns in ((a.u[:, None], a, b), (b.u, b, a))[: 1 + (a is not b)]:
                weighted = values * weight
                self._add("p10", rows, columns, weighted, values)
                self._add("p20", rows, columns, weighted, weighted)
        if not self._grouped:
            return
        by_b, by_a = values @ b.of_groups, a.of_groups.T @ values
        self._add_both("groups", a, b, both := a.of_groups.T @ by_b, both)
        self._add_taus(a, b, by_b, a.u[:, None], b.u_groups)
        if a is not b:
            self._add_taus(b, a, by_a, b.u, a.u_groups[:, None])

    def _add_taus(self, rows: _Panel, columns: _Panel, sums: Tensor, u_rows: Tensor, u_groups: Tensor) -> None:
        """Add sums over the groups of some columns, for each of some rows."""
        self._add("tau00", rows, columns, sums, sums)
        if self._unequal:
            self._add("tau10", rows, columns, sums * u_rows, sums)
            self._add("tau01", rows, columns, sums * u_groups, sums)

    def _add_both(self, name: str, a: _Panel, b: _Panel, x: Tensor, y: Tensor) -> None:
        found = self._add(name, a, b, x, y)
        if a is not b:
            self.found[name][:, :, b.bucket, a.bucket] += found

    def _add(self, name: str, rows: _Panel, columns: _Panel, x: Tensor, y: Tensor) -> Tensor:
        found = inner(x.flatten(1), y.flatten(1))
        self.found[name][:, :, rows.bucket, columns.bucket] += found
        return found
