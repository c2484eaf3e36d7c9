"""What a reduction knows of a kernel: leaves f(w t; a) of bases t, joined by sums and products.

Everything else about a kernel (bandwidths a dimension, norms, angles) is done to the rows in differentiable torch
before, so that its gradients need no form of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from lamina_kernels.tiles.rows import accumulation_dtype

Hyperparameter = float | torch.Tensor
Base = Literal["dot", "cosine", "square", "norm", "own"]

PARAMETERS = 2
"""Numbers of a leaf that have gradients: its weight w and its shape a."""


class Leaf(NamedTuple):
    """f(w t(x_i, y_j); a), with w and a in its row of the parameters, [leaves, PARAMETERS].

    Attributes:
        base: t: "dot" is <x, y>; "cosine" is <x, y> / (|x| |y|), 0 for a row of zeros; "square" is |x - y|²; "norm"
            is |x - y|_p; "own" is a function of a user's own.
        norm: p, at least 1, of "norm"; else 0.
        function: The name of f in `functions.FUNCTIONS`.
        degree: The whole number in f, if there is one; of "own", the number of its function, see `pointwise`.
        start: The first of the leaf's columns of x and y.
        stop: The column behind the last.
        place: The leaf's row of the parameters.
    """

    base: Base
    norm: float
    function: str
    degree: int
    start: int
    stop: int
    place: int


class Branch(NamedTuple):
    """The sum ("+") or the product ("*") of two nodes."""

    operator: Literal["+", "*"]
    left: Node
    right: Node


Node = Leaf | Branch


class Terms(NamedTuple):
    """A kernel and the rows that it is a function of.

    Attributes:
        x: [n, columns], the rows as the leaves take them, one set of columns behind the other.
        y: [m, columns]; x itself if the two are the same rows.
        parameters: [leaves, PARAMETERS], differentiable; float64 on the rows' device.
        code: The tree, see `decoded`.
    """

    x: torch.Tensor
    y: torch.Tensor
    parameters: torch.Tensor
    code: str


class Builder:
    """Collects what the leaves of a kernel need; `Kernel.node` is called with it.

    Args:
        x: [n, d].
        y: [m, d]; x itself for the pairs of one set of rows.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self._sets: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._plain: tuple[int, int] | None = None
        self._width = 0
        self._parameters: list[torch.Tensor] = []

    def leaf(
        self,
        base: Base,
        function: str,
        weight: Hyperparameter,
        *,
        shape: Hyperparameter = 0.0,
        norm: float = 0.0,
        degree: int = 0,
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> Leaf:
        """Return a leaf; `change` makes its rows of the given ones."""
        start, stop = self._columns(change)
        leaf = Leaf(base, norm, function, degree, start, stop, len(self._parameters))
        self._parameters.append(torch.stack([self._number(weight), self._number(shape)]))
        return leaf

    def distance(
        self,
        base: Base,
        function: str,
        bandwidth: Hyperparameter,
        factor: float,
        *,
        shape: Hyperparameter = 0.0,
        norm: float = 0.0,
    ) -> Leaf:
        """Return a leaf of -factor t / bandwidth² ("square") or -factor t / bandwidth ("norm").

        A bandwidth a dimension divides the rows, moved by the mean of y before: a quotient of large numbers is rounded
        to fewer digits behind the point. The rows are then in the dtype that sums are kept in.
        """
        if isinstance(bandwidth, torch.Tensor) and bandwidth.numel() != 1:
            dtype, shift = accumulation_dtype(self.x.dtype), middle(self.y)

            def scaled(rows: torch.Tensor) -> torch.Tensor:
                return (rows.to(dtype) - shift.to(dtype)) / bandwidth.to(dtype)

            return self.leaf(base, function, -factor, shape=shape, norm=norm, change=scaled)
        if isinstance(bandwidth, torch.Tensor):
            bandwidth = bandwidth.double().reshape(())
        power = 2 if base == "square" else 1
        return self.leaf(base, function, -factor / bandwidth**power, shape=shape, norm=norm)

    def result(self, node: Node) -> Terms:
        """Return everything that was collected, for the tree of these leaves."""
        parameters = torch.stack(self._parameters)
        x, y = self._sets[0] if len(self._sets) == 1 else (torch.cat(rows, 1) for rows in zip(*self._sets, strict=True))
        return Terms(x, x if self.y is self.x else y, parameters, encoded(node))

    def _columns(self, change: Callable[[torch.Tensor], torch.Tensor] | None) -> tuple[int, int]:
        if change is None and self._plain is not None:
            return self._plain
        x = self.x if change is None else change(self.x)
        y = x if self.y is self.x else self.y if change is None else change(self.y)
        columns = self._width, self._width + x.shape[1]
        self._sets.append((x, y))
        self._width = columns[1]
        if change is None:
            self._plain = columns
        return columns

    def _number(self, value: Hyperparameter) -> torch.Tensor:
        if isinstance(value, torch.Tensor):
            return value.double().reshape(())
        return torch.tensor(value, dtype=torch.float64, device=self.x.device)


def middle(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean of the rows in float64, [d]; 0 where it is not finite, so that one broken row breaks no other."""
    return rows.detach().mean(0, dtype=torch.float64).nan_to_num(0, 0, 0)


def encoded(node: Node) -> str:
    """Return a tree as a string, which an operator of torch takes: leaves and operators, an operator behind its two."""
    if isinstance(node, Leaf):
        return "/".join(map(str, node))
    return f"{encoded(node.left)} {encoded(node.right)} {node.operator}"


def decoded(code: str) -> Node:
    """Return the tree of a string."""
    nodes: list[Node] = []
    for token in code.split():
        if token in ("+", "*"):
            right, left = nodes.pop(), nodes.pop()
            nodes.append(Branch(token, left, right))
        else:
            base, norm, function, *numbers = token.split("/")
            degree, start, stop, place = map(int, numbers)
            nodes.append(Leaf(base, float(norm), function, degree, start, stop, place))  # pyright: ignore[reportArgumentType]
    (root,) = nodes
    return root


def leaves(node: Node) -> list[Leaf]:
    """Return the leaves of a tree, from left to right."""
    return [node] if isinstance(node, Leaf) else [*leaves(node.left), *leaves(node.right)]
