"""The obvious form: the whole matrix of kernel values, differentiated by torch itself, as often as asked."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.functions import FUNCTIONS
from lamina_kernels.gram.kernels import unit
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.pointwise import reference_of
from lamina_kernels.gram.terms import Leaf, Node, middle


def matrix(p: Pairs) -> Tensor:
    """Return k(x_i, y_j) for all pairs, [n, m], also those that are left out."""
    itself = torch.eye(p.n, dtype=torch.bool, device=p.x.device) if p.same else None
    return values(p.tree, p.x.to(p.dtype), p.y.to(p.dtype), p.parameters.to(p.dtype), itself)


def hidden(p: Pairs) -> Tensor | None:
    """Return which pairs are left out, [n, m], or None if all count."""
    out = torch.eye(p.n, dtype=torch.bool, device=p.x.device) if p.apart else None
    if p.x_groups is not None and p.y_groups is not None:
        together = p.x_groups[:, None] == p.y_groups
        return together if out is None else out | together
    return out


def values(node: Node, x: Tensor, y: Tensor, parameters: Tensor, itself: Tensor | None) -> Tensor:
    """Return the values of a tree.

    Args:
        node: The tree.
        x: [n, columns], in the dtype of the values, like all that follows.
        y: [m, columns].
        parameters: [leaves, 2].
        itself: [n, m], where both rows are one and the same, whose distance is 0; None for nowhere.
    """
    if isinstance(node, Leaf):
        weight, shape = parameters[node.place]
        u = weight * base(node, x[:, node.start : node.stop], y[:, node.start : node.stop], itself)
        return FUNCTIONS[node.function].value(u, shape, node.degree, None)
    left, right = (values(side, x, y, parameters, itself) for side in (node.left, node.right))
    return left + right if node.operator == "+" else left * right


def base(leaf: Leaf, x: Tensor, y: Tensor, itself: Tensor | None) -> Tensor:
    """Return t(x_i, y_j) of a leaf's columns: distances of "norm" from differences, [n, m, width] numbers."""
    if leaf.base == "dot":
        return x @ y.T
    if leaf.base == "cosine":
        return unit(x) @ unit(y).T
    if leaf.base == "own":
        return reference_of(leaf.degree)(x @ y.T, x.square().sum(1)[:, None], y.square().sum(1))
    if leaf.base == "square":
        shift = middle(y).to(y.dtype)
        x, y = x - shift, y - shift
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * (x @ y.T)
        # At least 0, with the derivative of what was rounded below it.
        squares = squares - squares.detach().clamp(max=0)
        return squares if itself is None else squares.masked_fill(itself, 0)
    differences = (x[:, None] - y).abs()
    if leaf.norm == 1:
        return differences.sum(2)
    if leaf.norm == torch.inf:
        return differences.amax(2) if x.shape[1] else differences.sum(2)
    return _power(_power(differences, leaf.norm).sum(2), 1 / leaf.norm)


def _power(x: Tensor, exponent: float) -> Tensor:
    """Return x^exponent with the derivative 0 at 0, where that of a root is infinite."""
    zero = x == 0
    return torch.where(zero, 1, x) ** exponent * ~zero
