"""Tiles of w t(x_i, y_j) in plain torch, and what the gradient of a tile adds to the gradients of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.kernels import across, unit
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.pointwise import reference_of
from lamina_kernels.gram.terms import PARAMETERS, Leaf, leaves, middle

Index = slice | Tensor

# Where a squared distance is a smaller part of its rows' squared norms, the difference of the norms and the product has
# lost too many digits for its root: the tile is computed anew from differences of rows.
_LOST = {torch.float32: 2.0**-8, torch.float64: 2.0**-16}


class Dot:
    """w <x_i, y_j>.

    Args:
        leaf: Whose base it is.
        p: The pairs.
        dtype: What rows are converted to before they are multiplied, a tile at a time.
        memory: Room for a tile.
    """

    def __init__(self, leaf: Leaf, p: Pairs, dtype: torch.dtype, memory: Tensor) -> None:
        columns = slice(leaf.start, leaf.stop)
        self.x, self.y, self.dtype, self.same = p.x[:, columns], p.y[:, columns], dtype, p.same
        self.weight = p.parameters[leaf.place, 0].to(dtype)
        self.norm, self._place = leaf.norm, leaf.place
        self._memory, self._columns = memory, columns
        self.shift: Tensor | None = None
        self.rows: Index = slice(0)
        self.left = memory

    def turn_to(self, rows: Index) -> None:
        """Make the tiles that follow tiles of these rows of x."""
        self.rows, self.left = rows, self._rows(self.x, rows)

    def tile(self, columns: Index) -> Tensor:
        """Return the tile of the rows turned to and these rows of y, in memory that the next call takes back."""
        y = self._rows(self.y, columns)
        return torch.mm(self.left * self.weight, y.T, out=self._room(len(y)))

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add what the gradient `g` of the tile `u` makes of those of the rows and of the weight that are wanted."""
        x, y = self.left, self._rows(self.y, columns)
        of_x = g if into.x is None and into.by_leaf is None else g @ y
        if into.by_leaf is not None:
            into.by_leaf[self._place, 0] += torch.dot(x.flatten(), of_x.flatten())
        self._add(into, columns, lambda: of_x * self.weight, lambda: (g.T @ x) * self.weight)

    def meets_itself(self, columns: Index) -> bool:
        """Return whether the diagonal of the tile pairs each row with itself."""
        return self.same and isinstance(columns, slice) and isinstance(self.rows, slice) and columns == self.rows

    def _rows(self, rows: Tensor, index: Index) -> Tensor:
        taken = rows[index].to(self.dtype)
        return taken if self.shift is None else taken - self.shift

    def _room(self, columns: int) -> Tensor:
        return self._memory[: len(self.left) * columns].view(len(self.left), columns)

    def _pull_weight(self, u: Tensor, g: Tensor, into: Gradients) -> None:
        if into.by_leaf is not None:
            into.by_leaf[self._place, 0] += torch.dot(g.flatten(), u.flatten()) / self.weight

    def _add(self, into: Gradients, columns: Index, of_x: Callable[[], Tensor], of_y: Callable[[], Tensor]) -> None:
        if into.x is not None:
            into.x[self.rows, self._columns] += of_x()
        if into.y is not None:
            into.y[columns, self._columns] += of_y()


class Cosine(Dot):
    """w <x_i, y_j> / (|x_i| |y_j|): the product of unit vectors, which are made of the rows of a tile."""

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add what the gradient of the tile makes of those of the rows and of the weight that are wanted."""
        self._pull_weight(u, g, into)
        if not into.of_rows:
            return
        x, y = self.left, self._rows(self.y, columns)
        self._add(
            into,
            columns,
            lambda: across(self.x[self.rows].to(self.dtype), g @ y) * self.weight,
            lambda: across(self.y[columns].to(self.dtype), g.T @ x) * self.weight,
        )

    def _rows(self, rows: Tensor, index: Index) -> Tensor:
        return unit(super()._rows(rows, index))


class Gradients(NamedTuple):
    """Gradients in the making, each None where it is not wanted.

    Attributes:
        x: [n, columns].
        y: [m, columns]; may be x itself, if both are the same rows.
        by_leaf: [leaves, 2] float64, those of the parameters.
    """

    x: Tensor | None
    y: Tensor | None
    by_leaf: Tensor | None

    @classmethod
    def zeros(cls, p: Pairs, *, x: bool, y: bool, parameters: bool) -> Gradients:
        """Return those that are wanted, before the first tile."""
        of_x, of_y = (
            torch.zeros(rows.shape, dtype=p.dtype, device=rows.device) if wanted else None
            for rows, wanted in ((p.x, x), (p.y, y))
        )
        shape = len(leaves(p.tree)), PARAMETERS
        return cls(of_x, of_y, torch.zeros(shape, dtype=torch.float64, device=p.x.device) if parameters else None)

    @property
    def of_rows(self) -> bool:
        """Whether those of rows are wanted."""
        return self.x is not None or self.y is not None


class Square(Dot):
    """w |x_i - y_j|², with w below 0, as one matrix product: of (-2w x, w |x|², w) and (y, 1, |y|²).

    Both sets of rows are first moved by the mean of y, in which distances do not change: the product then cancels less.
    """

    def __init__(self, leaf: Leaf, p: Pairs, dtype: torch.dtype, memory: Tensor) -> None:
        super().__init__(leaf, p, dtype, memory)
        self.shift = middle(self.y).to(dtype)

    def turn_to(self, rows: Index) -> None:
        """Make the tiles that follow tiles of these rows of x."""
        super().turn_to(rows)
        self._product = self._augmented(self.weight)

    def tile(self, columns: Index) -> Tensor:
        """Return the tile; a row and itself are exactly 0 apart."""
        y = self._rows(self.y, columns)
        out = self._squares(y).clamp_max_(0)
        return out.fill_diagonal_(0) if self.meets_itself(columns) else out

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add what the gradient of the tile makes of those of the rows and of the weight that are wanted."""
        self._pull_weight(u, g, into)
        self._pull_differences(columns, g, 2 * self.weight, into)

    def _pull_differences(self, columns: Index, g: Tensor, factor: Tensor, into: Gradients) -> None:
        """Add factor sum_j g_ij (x_i - y_j) to the gradients of x, and what mirrors it to those of y."""
        x, y = self.left, self._rows(self.y, columns)
        self._add(
            into,
            columns,
            lambda: (x * g.sum(1)[:, None] - g @ y) * factor,
            lambda: (y * g.sum(0)[:, None] - g.T @ x) * factor,
        )

    def _augmented(self, weight: Tensor) -> Tensor:
        x = self.left
        return torch.cat([-2 * weight * x, weight * squares(x), weight.expand(len(x), 1)], 1)

    def _squares(self, y: Tensor) -> Tensor:
        right = torch.cat([y, y.new_ones(len(y), 1), squares(y)], 1)
        return torch.mm(self._product, right.T, out=self._room(len(y)))


class Euclidean(Square):
    """w |x_i - y_j|, with w below 0: the root of a squared distance, from differences where that lost its digits."""

    def turn_to(self, rows: Index) -> None:
        """Make the tiles that follow tiles of these rows of x."""
        Dot.turn_to(self, rows)
        self._product = self._augmented(torch.ones_like(self.weight))
        self._norms = squares(self.left)[:, 0]

    def tile(self, columns: Index) -> Tensor:
        """Return the tile; a row and itself are exactly 0 apart."""
        y = self._rows(self.y, columns)
        out, itself = self._squares(y), self.meets_itself(columns)
        if itself:
            out.fill_diagonal_(torch.inf)
        # The smallest of each row stands for all; a row that is NaN must not hide others.
        least = _LOST[self.dtype] * (self._norms + squares(y).amax())
        if not bool((out.amin(1) >= least).all()):
            out.copy_(torch.cdist(self.left, y, compute_mode="donot_use_mm_for_euclid_dist"))
        else:
            out.sqrt_()
        return (out.fill_diagonal_(0) if itself else out).mul_(self.weight)

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add likewise; the gradient of a distance of 0 is 0."""
        self._pull_weight(u, g, into)
        if not into.of_rows:
            return
        # d|x - y| / dx = (x - y) / |x - y|, and u is w |x - y|.
        self._pull_differences(columns, torch.where(u == 0, 0, g / u), self.weight.square(), into)


class Minkowski(Dot):
    """w |x_i - y_j|_p for another p than 2, from differences of rows."""

    def tile(self, columns: Index) -> Tensor:
        """Return the tile."""
        x, y = self.left, self._rows(self.y, columns)
        distances = torch.cdist(x, y, p=self.norm)
        if self.norm == torch.inf:
            # Its maximum drops NaN.
            distances.masked_fill_(x.isnan().any(1)[:, None] | y.isnan().any(1), torch.nan)
        return torch.mul(distances, self.weight, out=self._room(len(y)))

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add what the gradient of the tile makes of those of the rows and of the weight that are wanted."""
        self._pull_weight(u, g, into)
        x, y = self.left, self._rows(self.y, columns)
        distances, g, pulled = u / self.weight, g * self.weight, torch.ops.aten._cdist_backward
        self._add(
            into,
            columns,
            lambda: pulled(g.contiguous(), x, y, self.norm, distances),
            lambda: pulled(g.T.contiguous(), y, x, self.norm, distances.T.contiguous()),
        )


class Own(Dot):
    """w f(<x_i, y_j>, |x_i|², |y_j|²) with a function of a user's own, which torch differentiates."""

    def __init__(self, leaf: Leaf, p: Pairs, dtype: torch.dtype, memory: Tensor) -> None:
        super().__init__(leaf, p, dtype, memory)
        self._function = reference_of(leaf.degree)

    def tile(self, columns: Index) -> Tensor:
        """Return the tile."""
        x, y = self.left, self._rows(self.y, columns)
        found = self._function(torch.mm(x, y.T), squares(x), squares(y).T)
        return torch.mul(found, self.weight, out=self._room(len(y)))

    def pull(self, columns: Index, u: Tensor, g: Tensor, into: Gradients) -> None:
        """Add what the gradient of the tile makes of those of the rows and of the weight that are wanted."""
        self._pull_weight(u, g, into)
        if not into.of_rows:
            return
        x, y = self.left, self._rows(self.y, columns)
        # Inside an operator, torch records nothing for `autograd.grad`.
        pull = torch.func.vjp(self._function, torch.mm(x, y.T), squares(x), squares(y).T)[1]
        of_dot, of_x, of_y = pull(g * self.weight)
        self._add(into, columns, lambda: of_dot @ y + 2 * of_x * x, lambda: of_dot.T @ x + 2 * of_y.T * y)


def base_of(leaf: Leaf, p: Pairs, dtype: torch.dtype, memory: Tensor) -> Dot:
    """Return the base of a leaf."""
    if leaf.base == "norm":
        return (Euclidean if leaf.norm == 2 else Minkowski)(leaf, p, dtype, memory)
    return {"dot": Dot, "cosine": Cosine, "square": Square, "own": Own}[leaf.base](leaf, p, dtype, memory)


def squares(rows: Tensor) -> Tensor:
    """Return the squared norm of each row, [b, 1]."""
    return rows.square().sum(1, keepdim=True)
