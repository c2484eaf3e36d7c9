"""Sums over pairs of rows for any two of many kernels in plain torch: a tile of each kernel is in memory at a time.

Kernel values are made once for each kernel. The sums of any two are one product of the tiles, laid out as vectors.
HSIC does not change where K_ij becomes K_ij + a_i + a_j: half of each row's mean over a sample of the others is taken
away before anything is summed, so that sums of large numbers do not hide small ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_bases import Gradients
from lamina_kernels.gram.blocked_scores import Scores
from lamina_kernels.gram.dependence.layers import Layers
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import blocked as plain
from lamina_kernels.tiles.inner import inner
from lamina_kernels.tiles.rows import tiles

BLOCK = 512
"""The most rows of a tile, unless a group has more."""
ROOM = 2**22
"""Numbers that the tiles of all kernels have together."""
SAMPLE = 256
"""Rows over which kernel values are averaged to center them."""


class Found(NamedTuple):
    """Sums over pairs of rows, float64; of groups of one size without their weights, which are numbers then.

    Attributes:
        pairs: [k, k], sums of K_ij L_ij, see `estimator`.
        rows: [k, n], row sums.
        weighted: [k, n], row sums in which a column counts as often as its group has rows; empty for one size.
        triples: [k, k], sums of R_ig S_ig; empty where every row is a group.
        cells: [k, k], sums of A_gh B_gh; likewise.
    """

    pairs: Tensor
    rows: Tensor
    weighted: Tensor
    triples: Tensor
    cells: Tensor


class Wanted(NamedTuple):
    """Which gradients are wanted, of each kernel.

    Attributes:
        rows: Those of its rows.
        parameters: Those of its parameters.
    """

    rows: Sequence[bool]
    parameters: Sequence[bool]

    @property
    def pulled(self) -> list[int]:
        """The kernels that have any."""
        return [place for place, both in enumerate(zip(*self, strict=True)) if any(both)]


class Panel(NamedTuple):
    """Whole groups that stand together.

    Attributes:
        rows: Their rows.
        ids: [rows], the group of each, from 0; None where every row is a group.
        u: [groups], the size of each.
        members: [rows, groups], 1 where a row is in a group.
    """

    rows: slice
    ids: Tensor | None
    u: Tensor
    members: Tensor

    @property
    def u_rows(self) -> Tensor:
        """The size of each row's group, [rows]."""
        return self.u if self.ids is None else self.u[self.ids]


def centers(layers: Layers, sums: Callable[[Pairs, Tensor], Tensor] = plain.sums) -> Tensor:
    """Return what is taken away from the values of each row and of each column, [k, n], from sums of any form."""
    step = max(1, layers.n // SAMPLE)
    places = slice(0, step * SAMPLE, step)
    return torch.stack([_center(p, sums, p.x[::step][:SAMPLE], places) for p in layers.pairs])


def _center(p: Pairs, sums: Callable[[Pairs, Tensor], Tensor], sample: Tensor, places: slice) -> Tensor:
    some = Pairs(p.x, sample, p.parameters, p.code, precision=p.precision)
    means = sums(some, torch.ones(len(sample), 1, dtype=p.dtype, device=p.x.device))[:, 0] / len(sample)
    return means - means[places].mean() / 2


def sums(layers: Layers, centers: Tensor) -> Found:
    """Return the sums of any two kernels."""
    walk = Walk(layers, centers)
    found = Found(*(centers.new_zeros(shape, dtype=torch.float64) for shape in shapes(layers)))
    for panel, other in walk.tiles():
        for name, place, part in parts(walk, panel, other, walk.values(other)):
            getattr(found, name)[place] += part
    return found


def parts(walk: Walk, panel: Panel, other: Panel, values: Tensor) -> Iterator[tuple[str, Any, Tensor]]:
    """Yield what a tile [k, rows, columns] and its mirror image add to the sums: to which, where, and what.

    Differentiable by torch in the values.
    """
    layers = walk.layers
    grouped, unequal = layers.sizes is not None, layers.size == 0
    twice, weights = 1 if other is panel else 2, walk.pair_weights(other)
    yield "pairs", ..., twice * compared(values if weights is None else values * weights, values, layers)
    for rows, columns, along in [(panel, other, values), (other, panel, values.mT)][:twice]:
        yield "rows", (slice(None), rows.rows), along.sum(2)
        if unequal:
            yield "weighted", (slice(None), rows.rows), along @ columns.u_rows
        if grouped:
            of_groups = along @ columns.members
            weights = walk.triple_weights(rows, columns)
            yield "triples", ..., compared(of_groups if weights is None else of_groups * weights, of_groups, layers)
    if grouped:
        cells = panel.members.T @ (values @ other.members)
        yield "cells", ..., twice * compared(cells, cells, layers)


def gradients(layers: Layers, centers: Tensor, g: Found, wanted: Wanted) -> list[Gradients]:
    """Return what gradients of the sums make of those of rows and parameters that are wanted, one for each kernel.

    Those of rows are `x`, of both sides. Values are made of all kernels; those without gradients take no more.
    """
    walk, pulled = Walk(layers, centers), wanted.pulled
    into = [
        Gradients.zeros(p, x=rows, y=False, parameters=parameters)
        for p, rows, parameters in zip(layers.pairs, *wanted, strict=True)
    ]
    grouped, unequal = layers.sizes is not None, layers.size == 0
    mixing = [
        (part + part.T)[pulled].to(layers.dtype) if part.ndim == 2 else part for part in (g.pairs, g.triples, g.cells)
    ]
    of_rows = g.rows[pulled].to(layers.dtype)
    of_weighted = g.weighted[pulled].to(layers.dtype) if unequal else g.weighted
    for panel, other in walk.tiles():
        values, twice = walk.values(other, keep=pulled), 1 if other is panel else 2
        weights = walk.pair_weights(other)
        down = mixed(mixing[0], values)
        down = (down if weights is None else down.mul_(weights)).mul_(twice)
        sides = [(panel, other, values, down), (other, panel, values.mT, down.mT)][:twice]
        for rows, columns, along, into_along in sides:
            into_along += of_rows[:, rows.rows, None]
            if unequal:
                into_along += of_weighted[:, rows.rows, None] * columns.u_rows
            if grouped:
                of_groups = along @ columns.members
                weights = walk.triple_weights(rows, columns)
                of_groups = mixed(mixing[1], of_groups)
                into_along += (of_groups if weights is None else of_groups * weights) @ columns.members.T
        if grouped:
            cells = mixed(mixing[2], panel.members.T @ (values @ other.members)).mul_(twice)
            down += panel.members @ cells @ other.members.T
        walk.hide(down, other)
        for place, own in zip(pulled, down, strict=True):
            walk.scores[place].pull(other.rows, own, into[place]._replace(y=into[place].x))
    return into


class Walk:
    """The tiles of all kernels, panel by panel.

    Args:
        layers: The kernels.
        centers: [k, n], see `centers`.
        block: The most rows of a tile, unless a group has more; None for as many as there is room for.
    """

    def __init__(self, layers: Layers, centers: Tensor, block: int | None = None) -> None:
        self.layers, self._centers = layers, centers
        self.panels = panels(layers, block)
        most = max(panel.rows.stop - panel.rows.start for panel in self.panels)
        self.scores = [Scores(p, most) for p in layers.pairs]
        self._room = centers.new_empty(len(layers) * most * most)
        self._panel = self.panels[0]
        sizes = layers.sizes
        self._squares = 0.0 if sizes is None else float(sizes.square().sum())

    def tiles(self) -> Iterator[tuple[Panel, Panel]]:
        """Yield the panels of rows and of columns, not before them; the methods that follow are of the last ones."""
        for a, panel in enumerate(self.panels):
            self._panel = panel
            for scores in self.scores:
                scores.turn_to(panel.rows)
            for other in self.panels[a:]:
                yield panel, other

    def values(self, other: Panel, *, keep: Sequence[int] = ()) -> Tensor:
        """Return centered kernel values, [k, rows, columns], in memory that the next call takes back.

        Args:
            other: The panel of columns.
            keep: The kernels whose gradients follow.
        """
        rows, columns = self._panel.rows, other.rows
        shape = len(self.scores), rows.stop - rows.start, columns.stop - columns.start
        values = self._room[: math.prod(shape)].view(shape)
        for place, (scores, centers, into) in enumerate(zip(self.scores, self._centers, values, strict=True)):
            tile = scores.kept(columns) if place in keep else scores.tile(columns)
            torch.sub(tile, centers[columns], out=into).sub_(centers[rows, None])
        return self.hide(values, other)

    def centered(self, values: Tensor, other: Panel) -> Tensor:
        """Return the same of values that were made elsewhere, in memory of its own."""
        rows, columns = self._centers[:, self._panel.rows, None], self._centers[:, None, other.rows]
        return self.hide(values - columns - rows, other)

    def hide(self, values: Tensor, other: Panel) -> Tensor:
        """Set the pairs that do not count to zero."""
        if other is not self._panel or self.layers.diagonal:
            return values
        if other.ids is None:
            values.diagonal(dim1=1, dim2=2).zero_()
            return values
        return values.masked_fill_(other.ids[:, None] == other.ids, 0)

    def pair_weights(self, other: Panel) -> Tensor | None:
        """Return how many quadruples complete each pair of rows, [rows, columns]; None where that is one number."""
        if self.layers.size:
            return None
        u, v = self._panel.u_rows[:, None].double(), other.u_rows.double()
        return ((self.layers.n - u - v) ** 2 - self._squares + u**2 + v**2).to(self._centers.dtype)

    def triple_weights(self, rows: Panel, columns: Panel) -> Tensor | None:
        """Return the weights of R_ig S_ig, [rows, groups of the columns]; None where they are one number."""
        return None if self.layers.size else self.layers.n - rows.u_rows[:, None] - 2 * columns.u


def panels(layers: Layers, block: int | None = None) -> list[Panel]:
    """Cut the rows into panels of whole groups; see `Walk`."""
    sizes, first = layers.sizes, layers.pairs[0]
    block = block or min(BLOCK, max(64, math.isqrt(ROOM // len(layers)) // 64 * 64))
    ones = torch.ones(layers.n, dtype=layers.dtype, device=first.x.device)
    if sizes is None:
        return [Panel(rows, None, ones[rows], ones[:0]) for rows in tiles(layers.n, block)]
    found = []
    for rows, groups in whole_groups(sizes.tolist(), block):
        here = sizes[groups]
        ids = torch.arange(len(here), device=here.device).repeat_interleave(here)
        members = torch.nn.functional.one_hot(ids, len(here)).to(layers.dtype)
        found.append(Panel(rows, ids, here.to(layers.dtype), members))
    return found


def whole_groups(sizes: Sequence[int], block: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and the groups of as many whole groups as a block of rows holds, one at least.

    Groups without rows stand last, and in none of them.
    """
    start = group = 0
    while group < len(sizes) and sizes[group]:
        last, stop = group + 1, start + sizes[group]
        while last < len(sizes) and sizes[last] and stop + sizes[last] - start <= block:
            stop += sizes[last]
            last += 1
        yield slice(start, stop), slice(group, last)
        start, group = stop, last


def shapes(layers: Layers) -> list[tuple[int, ...]]:
    """Return the shapes of what is found."""
    count, grouped, unequal = len(layers), layers.sizes is not None, layers.size == 0
    square, rows = (count, count), (count, layers.n)
    return [square, rows, rows if unequal else (0,), square if grouped else (0,), square if grouped else (0,)]


def compared(x: Tensor, y: Tensor, layers: Layers) -> Tensor:
    """Return the inner products of tiles [k, ...] that are compared, [k, k] float64; 0 for the rest."""
    x, y, left = x.flatten(1), y.flatten(1), layers.left
    if left == len(layers):
        return inner(x, y)
    found = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    found[:left, left:] = inner(x[:left], y[left:])
    if layers.own:
        found.diagonal().copy_(torch.cat([inner(a[None], b[None])[0] for a, b in zip(x, y, strict=True)]))
    return found


def mixed(weights: Tensor, values: Tensor) -> Tensor:
    """Return sum_b weights_ab values_b for tiles [k, rows, columns]."""
    return (weights @ values.flatten(1)).view(-1, *values.shape[1:])
