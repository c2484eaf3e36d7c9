"""The kernel functions of two rows: their sums and products, and those made of the dot product."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, cast

import torch

from lamina_kernels.gram.terms import Branch, Builder, Hyperparameter, Node
from lamina_kernels.tiles.rows import accumulation_dtype


class Kernel:
    """A function k(x, y) of two rows. `a + b` and `a * b` are its sum and its product with another one."""

    def __add__(self, other: Kernel) -> Sum:
        return Sum(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Kernel) -> Product:
        return Product(self, other) if isinstance(other, Kernel) else NotImplemented

    def hyperparameters(self) -> dict[str, Any]:
        """Return the numbers, tensors and kernels that the kernel holds, by their names."""
        return {field.name: getattr(self, field.name) for field in fields(cast(Any, self))}

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors among these numbers, also of kernels that it is made of."""
        for value in self.hyperparameters().values():
            if isinstance(value, Kernel):
                yield from value.tensors()
            elif isinstance(value, torch.Tensor):
                yield value

    def node(self, builder: Builder) -> Node:
        """Return the kernel as leaves, sums and products for some rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sum(Kernel):
    """The sum of two kernels: k(x, y) = left(x, y) + right(x, y).

    Example:
        >>> Linear() + Cosine()
        Sum(left=Linear(), right=Cosine())
    """

    left: Kernel
    right: Kernel

    def node(self, builder: Builder) -> Node:
        """Return the sum of the two nodes."""
        return Branch("+", self.left.node(builder), self.right.node(builder))


@dataclass(frozen=True)
class Product(Kernel):
    """The product of two kernels: k(x, y) = left(x, y) right(x, y).

    Example:
        >>> Linear() * Cosine()
        Product(left=Linear(), right=Cosine())
    """

    left: Kernel
    right: Kernel

    def node(self, builder: Builder) -> Node:
        """Return the product of the two nodes."""
        return Branch("*", self.left.node(builder), self.right.node(builder))


@dataclass(frozen=True)
class Linear(Kernel):
    """The dot product: k(x, y) = <x, y>.

    Example:
        >>> Linear()
        Linear()
    """

    def node(self, builder: Builder) -> Node:
        """Return the dot product as it is."""
        return builder.leaf("dot", "identity", 1.0)


@dataclass(frozen=True)
class Polynomial(Kernel):
    """A power of the dot product: k(x, y) = (gamma <x, y> + coef0)^degree.

    Attributes:
        degree: A whole number, at least 1.
        gamma: A number, or a tensor of one, differentiable; None for 1 / d, where d is the width of the rows.
        coef0: Likewise, without None.

    Raises:
        ValueError: `degree` is not such a number.

    Example:
        >>> Polynomial(2, gamma=1.0)
        Polynomial(degree=2, gamma=1.0, coef0=1.0)
    """

    degree: int = 3
    gamma: Hyperparameter | None = None
    coef0: Hyperparameter = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.degree, bool) or not isinstance(self.degree, int) or self.degree < 1:
            raise ValueError(f"Polynomial: degree is {self.degree!r}, expected a whole number of at least 1")

    def node(self, builder: Builder) -> Node:
        """Return the power of the dot product."""
        gamma = 1 / max(builder.x.shape[1], 1) if self.gamma is None else self.gamma
        return builder.leaf("dot", "power", gamma, shape=self.coef0, degree=self.degree)


@dataclass(frozen=True)
class Cosine(Kernel):
    """The cosine: k(x, y) = <x, y> / (|x| |y|); 0 for a row of zeros.

    Example:
        >>> Cosine()
        Cosine()
    """

    def node(self, builder: Builder) -> Node:
        """Return the dot product of unit vectors."""
        return builder.leaf("dot", "identity", 1.0, change=unit)


@dataclass(frozen=True)
class ArcCosine(Kernel):
    """The kernel of a wide random network of one layer: k(x, y) = |x|^n |y|^n J_n(angle) / pi.

    It is 2 E[step(<w, x>) step(<w, y>) <w, x>^n <w, y>^n] over w from the standard normal distribution: units that step
    (order 0), rectify (1), or square what they rectify (2). J_0 = pi - t, J_1 = sin t + (pi - t) cos t,
    J_2 = 3 sin t cos t + (pi - t)(1 + 2 cos² t), at the angle t of x and y. A row of zeros is orthogonal to others.

    Attributes:
        order: 0, 1 or 2.

    Raises:
        ValueError: `order` is another number.

    Source:
        Cho and Saul, Kernel Methods for Deep Learning, 2009.

    Example:
        >>> ArcCosine(1)
        ArcCosine(order=1)
    """

    order: int = 1

    def __post_init__(self) -> None:
        if self.order not in (0, 1, 2):
            raise ValueError(f"ArcCosine: order is {self.order!r}, expected 0, 1 or 2")

    def node(self, builder: Builder) -> Node:
        """Return the function of the angle, times powers of the norms as a product of rows of one number."""
        angle = builder.leaf("norm", "angle", -1.0, norm=2.0, degree=self.order, change=direction)
        if self.order == 0:
            return angle

        def sizes(rows: torch.Tensor) -> torch.Tensor:
            return _norms(rows) ** self.order

        return Branch("*", angle, builder.leaf("dot", "identity", 1.0, change=sizes))


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows over their norms, computed in the dtype that sums are kept in; rows of zeros stay."""
    norms = _norms(rows)
    return rows.to(norms.dtype) / torch.where(norms == 0, 1, norms)


def across(rows: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Return the gradients by rows from those by their unit vectors: what lies along a row does not move its vector."""
    directions, norms = unit(rows), _norms(rows)
    along = (directions * g).sum(1, keepdim=True)
    return (g - directions * along) / torch.where(norms == 0, 1, norms)


def levelled(rows: torch.Tensor) -> torch.Tensor:
    """Return the rows times powers of 2 that make the largest number of each about 1: their squares are then numbers.

    Squares of float16 are numbers in the dtype that sums are kept in.
    """
    if rows.dtype == torch.float16 or not rows.numel():
        return rows
    largest = rows.detach().abs().amax(1, keepdim=True).to(accumulation_dtype(rows.dtype))
    most = torch.finfo(rows.dtype).max
    bound = math.frexp(most)[1] - 2
    exponent = torch.frexp(torch.where(largest <= most, largest, 1)).exponent.clamp(-bound, bound)
    return rows * torch.ldexp(torch.ones_like(largest), -exponent).to(rows.dtype)


def _norms(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.to(accumulation_dtype(rows.dtype))
    if not rows.shape[1]:
        return rows.new_zeros(len(rows), 1)
    # Squares of large and of small numbers are none: the largest of a row is taken out of it.
    largest = rows.detach().abs().amax(1, keepdim=True)
    largest = torch.where(largest == 0, 1, largest)
    return torch.linalg.vector_norm(rows / largest, dim=1, keepdim=True) * largest


def direction(rows: torch.Tensor) -> torch.Tensor:
    """Return unit vectors; a row of zeros points along a dimension of its own."""
    directions = unit(rows)
    return torch.cat([directions, (_norms(rows) == 0).to(directions.dtype)], 1)
