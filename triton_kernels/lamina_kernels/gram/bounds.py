"""Tiles of lower bounds of distances in plain torch: a matrix product less what its rounding can be.

What a product says of a distance is off by some units of rounding of the squared norms, which can be more than the
distance itself. A bound decides nearly all pairs; what it cannot decide is computed from differences of rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_bases import Index
from lamina_kernels.gram.distances import finite, leaf_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.tiles.rows import tiles

# Largest numbers of the rows between which squares of them, and sums of these, are normal numbers of single precision.
SINGLE = 1e-12, 1e15
_DOUBLE = 1e140

# How much torch may round numbers in single precision before it multiplies them, by how it is set: to TF32 or bfloat16.
_ROUNDED = {"highest": 0.0, "high": 2.0**-11, "medium": 2.0**-8}
# Units of rounding beside those of d products and their sum: of norms, the shift, and the bound itself.
_OTHERS = 10

_PIECE = 4096
"""Rows at a time of the first look at all of them."""


class Side(NamedTuple):
    """Some rows as they enter the product.

    Attributes:
        rows: Which rows: a slice, or places.
        operand: Their numbers, and what their bounds need.
        sizes: [b], squared norms ("square") or norms ("dot").
        lost: [b], which of them are not finite.
        groups: Their groups, with the smallest and the largest; None without groups.
    """

    rows: Index
    operand: Tensor
    sizes: Tensor
    lost: Tensor
    groups: tuple[Tensor, Tensor, Tensor] | None


class Bounds:
    """The matrix of lower bounds of t(x_i, y_j), of which one tile at a time is in memory.

    Args:
        op: Who asks, for the message.
        p: Pairs with one leaf of weight w; bounds are of t, without the weight.
        size: The most pairs of a tile.

    Raises:
        ValueError: Rows so large that their squares overflow double precision.
    """

    def __init__(self, op: str, p: Pairs, size: int) -> None:
        self.pairs, self.base = p, leaf_of(p).base
        self.shift, largest = survey(p)
        if largest > _DOUBLE:
            raise ValueError(f"{op}: rows hold numbers of size {largest:.1e}: their squares overflow")
        single = p.x.dtype != torch.float64 and (largest == 0 or SINGLE[0] < largest < SINGLE[1])
        self.dtype = torch.float32 if single else torch.float64
        self._part = (p.x.shape[1] + _OTHERS) * torch.finfo(self.dtype).eps
        if single:
            self._part += 8 * _ROUNDED[torch.get_float32_matmul_precision()]
        self._memory = torch.empty(min(size, p.n * p.m), dtype=self.dtype, device=p.x.device)

    def left(self, rows: Index) -> Side:
        """Return rows of x."""
        return self._side(self.pairs.x, self.pairs.x_groups, rows, left=True)

    def right(self, rows: slice) -> Side:
        """Return rows of y."""
        return self._side(self.pairs.y, self.pairs.y_groups, rows, left=False)

    def tile(self, x: Side, y: Side) -> Tensor:
        """Return lower bounds for rows of x and rows of y, in memory that the next call takes back.

        Pairs that are left out, and those with rows of y that are not finite, are infinitely far.
        """
        out = self._memory[: len(x.operand) * len(y.operand)].view(len(x.operand), len(y.operand))
        if self.base == "norm":
            torch.mul(torch.cdist(x.operand, y.operand, p=1.0), 1 - self._part, out=out)
        else:
            torch.mm(x.operand, y.operand.T, out=out)
        return self._hide(out, x, y)

    def slack(self, x: Side, y: Side) -> Tensor:
        """Return how much larger than its bound each distance of a tile can be, by row of x, [b]."""
        largest = y.sizes.amax()
        both = x.sizes * largest if self.base == "dot" else x.sizes + largest
        return 2 * self._part * both + torch.finfo(self.dtype).tiny

    def above(self, limits: Tensor) -> Tensor:
        """Return limits, float64, as finite numbers of a tile's dtype that are not smaller."""
        return rounded(limits, torch.inf, self.dtype)

    def below(self, limits: Tensor) -> Tensor:
        """Return limits, float64, as finite numbers of a tile's dtype that are not larger."""
        return rounded(limits, -torch.inf, self.dtype)

    def _side(self, rows: Tensor, groups: Tensor | None, index: Index, *, left: bool) -> Side:
        """Return rows as the product takes them, zeros where they are lost.

        "square": (-2x, 1, (1 - e)|x|²) and (y, (1 - e)|y|², 1); "dot": (-x, -|x|) and (y, e|y|).
        """
        taken = rows[index]
        lost = ~finite(taken)
        taken = taken.to(self.dtype) if self.shift is None else taken.to(self.dtype) - self.shift
        if bool(lost.any()):
            taken = taken.masked_fill(lost[:, None], 0)
        if self.base == "norm":
            operand, sizes = taken, taken.abs().sum(1)
        else:
            squares = taken.square().sum(1, keepdim=True, dtype=torch.float64)
            if self.base == "dot":
                norms = squares.sqrt().to(self.dtype)
                operand, sizes = torch.cat([-taken, -norms] if left else [taken, self._part * norms], 1), norms[:, 0]
            else:
                bias = ((1 - self._part) * squares - torch.finfo(self.dtype).tiny).to(self.dtype)
                ones = torch.ones_like(bias)
                operand = torch.cat([-2 * taken, ones, bias] if left else [taken, bias, ones], 1)
                sizes = squares[:, 0].to(self.dtype)
        own = None if groups is None else groups[index]
        return Side(index, operand, sizes, lost, None if own is None else (own, own.min(), own.max()))

    def _hide(self, tile: Tensor, x: Side, y: Side) -> Tensor:
        if bool(y.lost.any()):
            tile.masked_fill_(y.lost, torch.inf)
        if self.pairs.apart:
            self._hide_itself(tile, x.rows, y.rows)
        if x.groups is not None and y.groups is not None:
            (mine, low, high), (theirs, lowest, highest) = x.groups, y.groups
            # Groups mostly stand together, so that most tiles hold none of the row's own.
            if bool((lowest <= high) & (highest >= low)):
                tile.masked_fill_(mine[:, None] == theirs, torch.inf)
        return tile

    def _hide_itself(self, tile: Tensor, rows: Index, columns: Index) -> None:
        assert isinstance(columns, slice)
        if isinstance(rows, slice):
            if rows.stop <= columns.start or columns.stop <= rows.start:
                return
            rows = torch.arange(rows.start, rows.stop, device=tile.device)
        here = ((rows >= columns.start) & (rows < columns.stop)).nonzero()[:, 0]
        tile[here, rows[here] - columns.start] = torch.inf


def rounded(limits: Tensor, towards: float, dtype: torch.dtype) -> Tensor:
    """Return limits, float64, as finite numbers of a dtype that are not beyond them on the way to an infinity."""
    largest = torch.finfo(dtype).max
    if dtype != torch.float64:
        limits = limits.to(dtype)
        limits = torch.nextafter(limits, torch.full_like(limits, towards))
    return limits.clamp(-largest, largest)


def survey(p: Pairs) -> tuple[Tensor | None, float]:
    """Return what is subtracted from all rows (None for nothing), and the largest number that is then left, or nearly.

    Distances do not change as rows are moved by the mean of y, and the product then cancels less.
    """
    middle = None
    if leaf_of(p).base == "square" and p.m:
        total, count = torch.zeros(p.y.shape[1], dtype=torch.float64, device=p.y.device), 0
        for rows in tiles(p.m, _PIECE):
            part = p.y[rows]
            total += part.masked_fill(~(good := finite(part))[:, None], 0).sum(0, dtype=torch.float64)
            count += int(good.sum())
        middle = total / max(count, 1)
    largest = 0.0
    for side in (p.x,) if p.same else (p.x, p.y):
        for rows in tiles(len(side), _PIECE):
            part = side[rows].double()
            part = (part if middle is None else part - middle).masked_fill(~finite(side[rows])[:, None], 0)
            largest = max(largest, float(part.abs().amax()) if part.numel() else 0.0)
    single = p.x.dtype != torch.float64
    return middle.float() if middle is not None and single and largest < SINGLE[1] else middle, largest
