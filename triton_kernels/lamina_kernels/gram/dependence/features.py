"""The shortcut of dot products: sums over pairs of rows are squares of products of features, X_aᵀ X_b.

Rows are moved by their mean, a tile at a time, so that row sums are 0, or without a row itself minus its squared norm;
tiles are multiplied in the dtype that sums are kept in, and added in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lamina_kernels.gram.dependence.blocked import Found, Wanted, shapes
from lamina_kernels.gram.dependence.layers import Layers
from lamina_kernels.tiles.rows import tiles

BLOCK = 4096
"""Rows that are multiplied at a time."""
ROOM = 2**28
"""Bytes of the products of features that are held at a time."""


def sums(layers: Layers) -> Found:
    """Return the sums of any two kernels that are compared."""
    found = Found(*(layers.pairs[0].x.new_zeros(shape, dtype=torch.float64) for shape in shapes(layers)))
    rows = Centered(layers)
    if not layers.diagonal:
        found.rows.sub_(rows.norms())
    for (a, b), product in _products(layers, rows, layers.compared):
        value = product.square().sum() - found.rows[a] @ found.rows[b]
        found.pairs[a, b] = value
        if layers.left == len(layers):
            found.pairs[b, a] = value
    return found


def gradients(layers: Layers, g: Found, wanted: Wanted) -> list[Tensor | None]:
    """Return the gradients of the rows of each representation, and those of the parameters, which are 0, as wanted."""
    rows, weights = Centered(layers), g.pairs + g.pairs.T
    made = {
        place: torch.zeros(layers.pairs[place].x.shape, dtype=layers.dtype, device=g.pairs.device)
        for place, is_wanted in enumerate(wanted.rows)
        if is_wanted
    }
    for (a, b), product in _products(
        layers, rows, [pair for pair in layers.compared if not made.keys().isdisjoint(pair)]
    ):
        # d |X_aᵀ X_b|² / dX_a = 2 X_b X_bᵀ X_a, and once more the other way round.
        turned = (2 * weights[a, b] * product).to(layers.dtype)
        for part in tiles(layers.n, BLOCK):
            if a in made:
                made[a][part].addmm_(rows.tile(b, part), turned.T)
            if b in made and a != b:
                made[b][part].addmm_(rows.tile(a, part), turned)
    norms = None if layers.diagonal else rows.norms()
    for place, into in made.items():
        of_rows = g.rows[place].to(into.dtype)
        crossed = torch.zeros(into.shape[1], dtype=torch.float64, device=into.device)
        for part in tiles(layers.n, BLOCK):
            crossed += (of_rows[part] @ rows.tile(place, part)).double()
        into += crossed.to(into.dtype)
        for part in tiles(layers.n, BLOCK):
            if norms is not None:
                own = g.rows[place, part] + weights[place] @ norms[:, part]
                into[part] -= 2 * own[:, None].to(into.dtype) * rows.tile(place, part)
    of_rows = [made[place].to(p.x.dtype) if place in made else None for place, p in enumerate(layers.pairs)]
    parameters = zip(layers.pairs, wanted.parameters, strict=True)
    return of_rows + [torch.zeros_like(p.parameters) if is_wanted else None for p, is_wanted in parameters]


class Centered:
    """Rows that are moved by their mean when they are asked for.

    Attributes:
        means: The mean of each representation.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.means = [self._sum(p.x).div_(layers.n).to(layers.dtype) for p in layers.pairs]

    def tile(self, place: int, part: slice) -> Tensor:
        """Return some rows of one representation."""
        return self._layers.pairs[place].x[part].to(self._layers.dtype) - self.means[place]

    def _sum(self, rows: Tensor) -> Tensor:
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for part in tiles(len(rows), BLOCK):
            total += rows[part].to(self._layers.dtype).sum(0)
        return total

    def norms(self) -> Tensor:
        """Return the squared norms of all rows, float64 [k, n]."""
        parts = [
            torch.stack(
                [torch.linalg.vecdot(x, x) for x in (self.tile(place, part) for place in range(len(self._layers)))]
            )
            for part in tiles(self._layers.n, BLOCK)
        ]
        return torch.cat(parts, 1).double()


def _products(
    layers: Layers, rows: Centered, compared: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Yield X_aᵀ X_b, float64, of each two that are compared: as many as there is room for from one pass over rows."""
    for some in _fitting(layers, compared):
        made = [
            torch.zeros(
                *(layers.pairs[place].x.shape[1] for place in pair),
                dtype=torch.float64,
                device=layers.pairs[0].x.device,
            )
            for pair in some
        ]
        for part in tiles(layers.n, BLOCK):
            here = {place: rows.tile(place, part) for place in {one for pair in some for one in pair}}
            for (a, b), into in zip(some, made, strict=True):
                into += here[a].T @ here[b]
        yield from zip(some, made, strict=True)


def _fitting(layers: Layers, compared: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    some: list[tuple[int, int]] = []
    taken = 0
    for a, b in compared:
        size = 8 * layers.pairs[a].x.shape[1] * layers.pairs[b].x.shape[1]
        if some and taken + size > ROOM:
            yield some
            some, taken = [], 0
        some.append((a, b))
        taken += size
    if some:
        yield some
