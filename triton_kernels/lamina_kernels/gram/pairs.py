"""The checked arguments that all reductions over pairs of rows share, as their forms and operators take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from lamina_kernels import checks
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.terms import Builder, Leaf, Node, decoded
from lamina_kernels.tiles.rows import accumulation_dtype

Exclude = Literal["self"] | torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""Which pairs are left out: of a row with itself, or of rows of one group (ids of x and of y, or of both at once)."""

PRECISIONS = ("bf16x6", "fp16x3", "bf16x3", "tf32", "ieee")


@dataclass(frozen=True)
class Pairs:
    """All pairs of a row of x and a row of y, their kernel, and which of them count.

    Attributes:
        x: [n, columns], see `Terms`.
        y: [m, columns].
        parameters: [leaves, 2] float64, see `Leaf`.
        code: The kernel's tree, see `terms.decoded`.
        same: Whether x and y are the same rows: the distance of a row and itself is exactly 0.
        apart: Whether pairs of a row with itself are left out; only if `same`.
        x_groups: [n] int64, or None; pairs of rows of one group are left out.
        y_groups: [m] int64, likewise.
        alike: Whether the groups of both sides are the same; of no account unless `same`.
        precision: How float32 is multiplied on tensor cores; None for accurately. Rows that are float32 only so that
            their gradients are say what they hold, "bf16" or "fp16": kernel values are made of that.
    """

    x: torch.Tensor
    y: torch.Tensor
    parameters: torch.Tensor
    code: str
    same: bool = False
    apart: bool = False
    x_groups: torch.Tensor | None = None
    y_groups: torch.Tensor | None = None
    alike: bool = True
    precision: str | None = None

    @property
    def n(self) -> int:
        """Rows of x."""
        return self.x.shape[0]

    @property
    def m(self) -> int:
        """Rows of y."""
        return self.y.shape[0]

    @property
    def symmetric(self) -> bool:
        """Whether k_ij = k_ji, also of pairs that are left out."""
        return self.same and self.alike

    @property
    def swapped(self) -> Pairs:
        """The same pairs with x and y in each other's place."""
        return replace(self, x=self.y, y=self.x, x_groups=self.y_groups, y_groups=self.x_groups)

    @property
    def dtype(self) -> torch.dtype:
        """What kernel values are: float64 for float64, else float32."""
        return accumulation_dtype(self.x.dtype)

    @property
    def tree(self) -> Node:
        """The kernel as leaves, sums and products."""
        return decoded(self.code)

    @property
    def linear(self) -> bool:
        """Whether kernel values are dot products of the rows."""
        tree = self.tree
        return isinstance(tree, Leaf) and (tree.base, tree.function) == ("dot", "identity")


_ARGUMENTS = (
    *("Tensor {}x", "Tensor {}y", "Tensor {}parameters", "Tensor? {}x_groups", "Tensor? {}y_groups"),
    *("str {}code", "int[] {}flags", "str? {}precision"),
)


def schema(prefix: str = "") -> str:
    """Return the arguments of pairs as an operator's schema names them."""
    return ", ".join(argument.format(prefix) for argument in _ARGUMENTS)


SCHEMA = schema()
COUNT = len(_ARGUMENTS)
"""How many arguments of an operator pairs take."""


def flat(p: Pairs) -> tuple[Any, ...]:
    """Return pairs as arguments of an operator."""
    flags = [int(p.same), int(p.apart), int(p.alike)]
    return p.x, p.y, p.parameters, p.x_groups, p.y_groups, p.code, flags, p.precision


def unflat(arguments: Sequence[Any]) -> Pairs:
    """Return the pairs of arguments."""
    x, y, parameters, x_groups, y_groups, code, flags, precision = arguments[:COUNT]
    same, apart, alike = map(bool, flags)
    return Pairs(x, y, parameters, code, same, apart, x_groups, y_groups, alike, precision)


def build(
    op: str,
    x: torch.Tensor,
    y: torch.Tensor | None,
    kernel: Kernel,
    exclude: Exclude | None = None,
    precision: str | None = None,
) -> Pairs:
    """Check the arguments of a reduction; docs/gram.md lists the errors."""
    y = x if y is None else y
    checks.matrices(op, x=x, y=y)
    checks.same_width(op, x=x, y=y)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"{op}: kernel is {kernel!r}, expected a kernel such as RBF(1.0)")
    check_hyperparameters(op, kernel, x)
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"{op}: precision is {precision!r}, expected None, 'bf16x6', 'fp16x3', 'bf16x3', 'tf32' or 'ieee'"
        )
    builder = Builder(x, y)
    terms = builder.result(kernel.node(builder))
    p = Pairs(terms.x, terms.y, terms.parameters, terms.code, same=y is x, precision=precision)
    return p if exclude is None else _without(op, p, exclude)


def check_hyperparameters(op: str, kernel: Kernel, x: torch.Tensor) -> None:
    """Raise ValueError unless the tensors that a kernel holds stand with the rows and fit them."""
    for name, value in kernel.hyperparameters().items():
        if isinstance(value, Kernel):
            check_hyperparameters(op, value, x)
        if not isinstance(value, torch.Tensor):
            continue
        where = f"{op}: {name} of {type(kernel).__name__}"
        if value.device != x.device:
            raise ValueError(f"{where} is on {value.device}, but x is on {x.device}")
        widths = (1, x.shape[1]) if name == "bandwidth" else (1,)
        if value.ndim > 1 or value.numel() not in widths:
            raise ValueError(f"{where} has shape {list(value.shape)}, expected one number" + _or_each(widths))


def _or_each(widths: Sequence[int]) -> str:
    return f", or {widths[1]}, one a dimension" if len(widths) > 1 else ""


def _without(op: str, p: Pairs, exclude: Exclude) -> Pairs:
    """Return pairs without those that are to be left out."""
    if isinstance(exclude, str):
        if exclude != "self":
            raise ValueError(f"{op}: exclude is {exclude!r}, expected 'self', or the ids of groups")
        if not p.same:
            raise ValueError(f"{op}: exclude is 'self', but y is not x: no row of y is known to be one of x")
        return replace(p, apart=True)
    if isinstance(exclude, torch.Tensor):
        if not p.same:
            raise ValueError(f"{op}: exclude is one tensor of groups, but y is not x: give a pair, of x and of y")
        exclude = (exclude, exclude)
    x_groups, y_groups = (group_ids(op, name, *given) for name, *given in zip("xy", exclude, (p.x, p.y), strict=True))
    return replace(p, x_groups=x_groups, y_groups=y_groups, alike=exclude[0] is exclude[1])


def group_ids(op: str, name: str, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the ids as int64, or raise ValueError unless there is one integer a row."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{op}: groups of {name} are {ids.dtype}, expected integers")
    if ids.shape != rows.shape[:1]:
        raise ValueError(
            f"{op}: groups of {name} have shape {list(ids.shape)}, expected [{rows.shape[0]}], one id a row"
        )
    if ids.device != rows.device:
        raise ValueError(f"{op}: groups of {name} are on {ids.device}, but the rows are on {rows.device}")
    return ids.long()


def numbered(ids: torch.Tensor) -> torch.Tensor:
    """Return the place of each id among the distinct ones, from 0, [n] int64.

    There are at most n: who takes room for so many need not count them, which compiled code could not wait for.
    """
    ordered, order = ids.long().sort()
    return torch.empty_like(order).scatter(0, order, ordered.diff(prepend=ordered[:1]).ne(0).cumsum(0))
