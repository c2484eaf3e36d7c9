"""Tiles of the matrix of kernel values in plain torch, one in memory at a time, and what their gradients add."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_bases import Dot, Gradients, Index, base_of
from lamina_kernels.gram.functions import FUNCTIONS
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.terms import Leaf, Node, leaves

BLOCK = 512
"""Rows and columns of a tile: of 1 MB in float32, it stays in a core's cache while it is worked on."""
ON_A_GPU = 16
"""So many times as many of a GPU: a tile of 256 MB in float32 is worth its launches."""


def block_of(p: Pairs) -> int:
    """Return the most rows and columns of a tile where the pairs are."""
    return BLOCK * (ON_A_GPU if p.x.is_cuda else 1)


class _Kept(NamedTuple):
    """What the gradient of a tile is made of: the values of a node, w t of a leaf, and what a branch joins."""

    k: Tensor
    u: Tensor | None = None
    left: _Kept | None = None
    right: _Kept | None = None


class Scores:
    """The matrix k(x_i, y_j), of which one tile at a time is in memory.

    Args:
        p: The pairs.
        block: The most rows and columns of a tile.
        dtype: What kernel values are; None for what they are by the dtype of the rows.
    """

    def __init__(self, p: Pairs, block: int, dtype: torch.dtype | None = None) -> None:
        self.pairs, self.dtype = p, p.dtype if dtype is None else dtype
        self._tree, self._parameters = p.tree, p.parameters.to(self.dtype)
        size = min(block, p.n) * min(block, p.m)
        self._bases: list[Dot] = []
        for leaf in leaves(self._tree):
            memory = torch.empty(size, dtype=self.dtype, device=p.x.device)
            self._bases.append(base_of(leaf, p, self.dtype, memory))
        self.rows: Index = slice(0)

    def turn_to(self, rows: Index) -> None:
        """Make the tiles that follow tiles of these rows of x."""
        self.rows = rows
        for base in self._bases:
            base.turn_to(rows)

    def tile(self, columns: Index, hidden: float = 0.0) -> Tensor:
        """Return k(x_i, y_j) of the rows turned to and these rows of y, in memory that the next call takes back.

        Args:
            columns: The rows of y.
            hidden: What pairs have that are left out.
        """
        return self.hide(self._values(self._tree, columns), columns, hidden)

    def kept(self, columns: Index, hidden: float = 0.0) -> Tensor:
        """Return the same in memory of its own, and keep what `pull` needs."""
        self._kept = self._keep(self._tree, columns)
        k = self._kept.k
        return self.hide(k.clone(), columns, hidden) if self.hides(columns) else k

    def pull(self, columns: Index, g: Tensor, into: Gradients) -> None:
        """Add what the gradient `g` of the tile that was `kept` makes of those of rows and parameters."""
        self._pull(self._tree, self._kept, columns, self.hide(g, columns, 0.0), into)

    def hides(self, columns: Index) -> bool:
        """Return whether pairs of the tile may be left out."""
        return self.pairs.x_groups is not None or self._meets_itself(columns)

    def hide(self, tile: Tensor, columns: Index, value: float) -> Tensor:
        """Set the pairs of a tile that are left out."""
        p = self.pairs
        if self._meets_itself(columns):
            tile.fill_diagonal_(value)
        if p.x_groups is not None and p.y_groups is not None:
            tile.masked_fill_(p.x_groups[self.rows][:, None] == p.y_groups[columns], value)
        return tile

    def _meets_itself(self, columns: Index) -> bool:
        """Return whether the diagonal of the tile is left out."""
        rows = self.rows
        return self.pairs.apart and isinstance(rows, slice) and isinstance(columns, slice) and columns == rows

    def _values(self, node: Node, columns: Index) -> Tensor:
        if isinstance(node, Leaf):
            u = self._bases[node.place].tile(columns)
            return FUNCTIONS[node.function].value(u, self._parameters[node.place, 1], node.degree, u)
        left, right = self._values(node.left, columns), self._values(node.right, columns)
        return left.add_(right) if node.operator == "+" else left.mul_(right)

    def _keep(self, node: Node, columns: Index) -> _Kept:
        if isinstance(node, Leaf):
            u = self._bases[node.place].tile(columns)
            return _Kept(FUNCTIONS[node.function].value(u, self._parameters[node.place, 1], node.degree, None), u)
        left, right = self._keep(node.left, columns), self._keep(node.right, columns)
        return _Kept(left.k + right.k if node.operator == "+" else left.k * right.k, None, left, right)

    def _pull(self, node: Node, kept: _Kept, columns: Index, g: Tensor, into: Gradients) -> None:
        if isinstance(node, Leaf):
            assert kept.u is not None
            function, shape = FUNCTIONS[node.function], self._parameters[node.place, 1]
            if into.by_leaf is not None and function.by_shape is not None:
                into.by_leaf[node.place, 1] += (g * function.by_shape(kept.u, kept.k, shape, node.degree)).sum()
            slope = function.slope(kept.u, kept.k, shape, node.degree)
            self._bases[node.place].pull(columns, kept.u, g if slope is None else g * slope, into)
            return
        assert kept.left is not None
        assert kept.right is not None
        of_left, of_right = (g, g) if node.operator == "+" else (g * kept.right.k, g * kept.left.k)
        self._pull(node.left, kept.left, columns, of_left, into)
        self._pull(node.right, kept.right, columns, of_right, into)
