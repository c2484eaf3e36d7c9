"""The checked arguments of `hsic_sums`, as all its forms take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lamina_kernels import checks
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.pairs import Pairs, check_hyperparameters
from lamina_kernels.gram.terms import Builder

SUMS = 5
"""Product, sums and squares of K and of L: `product`, `sums_x`, `sums_y`, `square_x`, `square_y`."""

PRECISIONS = ("bf16x6", "tf32", "ieee")


@dataclass(frozen=True)
class Problem:
    """Pairs of rows (x_i, y_i) and (x'_j, y'_j), and how to sum over the j.

    Attributes:
        of_x: The pairs of a row of x [n, dx] and a row of x' [m, dx], x itself on a diagonal block; their matrix is K.
        of_y: Those of y and y' likewise; their matrix is L.
        groups: [m] int64, from 0, or None for one sum over all j.
        n_groups: One more than the largest id; 1 without groups.
        diagonal: Whether the rows are paired with themselves, so that K_ii = L_ii = 0.
    """

    of_x: Pairs
    of_y: Pairs
    groups: torch.Tensor | None
    n_groups: int
    diagonal: bool

    @property
    def n(self) -> int:
        """Rows that sums are returned for."""
        return self.of_x.n

    @property
    def m(self) -> int:
        """Rows that are summed over."""
        return self.of_x.m

    @property
    def pairs(self) -> tuple[Pairs, Pairs]:
        """Those of x and those of y."""
        return self.of_x, self.of_y

    @property
    def linear(self) -> bool:
        """Whether values of both kernels are dot products."""
        return all(p.linear for p in self.pairs)

    @property
    def wants_gradients(self) -> bool:
        """Whether rows or hyperparameters have gradients that are wanted."""
        held = (each for p in self.pairs for each in (p.x, p.y, p.parameters))
        return torch.is_grad_enabled() and any(each.requires_grad for each in held)

    def zeros(self) -> torch.Tensor:
        """Return the five sums before anything was added: float64 [5, n, n_groups]."""
        return self.of_x.x.new_zeros(SUMS, self.n, self.n_groups, dtype=torch.float64)


def build(
    x: torch.Tensor,
    y: torch.Tensor,
    x_other: torch.Tensor | None,
    y_other: torch.Tensor | None,
    kernel_x: Kernel,
    kernel_y: Kernel,
    groups: torch.Tensor | None,
    groups_other: torch.Tensor | None,
    precision: str | None,
) -> Problem:
    """Check the arguments of `hsic_sums`; its docstring lists the errors."""
    if (x_other is None) != (y_other is None):
        given, missing = ("y_other", "x_other") if x_other is None else ("x_other", "y_other")
        raise ValueError(f"hsic_sums: {given} is given without {missing}; rows pair up, give both or neither")
    others = {} if x_other is None or y_other is None else {"x_other": x_other, "y_other": y_other}
    checks.matrices("hsic_sums", x=x, y=y, **others)
    checks.same_rows("hsic_sums", x=x, y=y)
    if others:
        checks.same_rows("hsic_sums", **others)
        checks.same_width("hsic_sums", x=x, x_other=others["x_other"])
        checks.same_width("hsic_sums", y=y, y_other=others["y_other"])
    for name, kernel in (("kernel_x", kernel_x), ("kernel_y", kernel_y)):
        if not isinstance(kernel, Kernel):
            raise TypeError(f"hsic_sums: {name} is {kernel!r}, expected a kernel such as RBF(1.0)")
        check_hyperparameters("hsic_sums", kernel, x if name == "kernel_x" else y)
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"hsic_sums: precision is {precision!r}, expected None, 'bf16x6', 'tf32' or 'ieee'")
    used, unused = ("groups_other", "groups") if others else ("groups", "groups_other")
    if {"groups": groups, "groups_other": groups_other}[unused] is not None:
        where = "with x_other, the rows of x_other are summed over" if others else "without x_other there are no others"
        raise ValueError(f"hsic_sums: {unused} is given, expected {used}: {where}")
    ids = groups_other if others else groups
    summed = others.get("x_other", x)
    return Problem(
        of_x=_pairs(kernel_x, x, summed, precision),
        of_y=_pairs(kernel_y, y, others.get("y_other", y), precision),
        groups=None if ids is None else _group_ids(used, ids, summed),
        n_groups=1 if ids is None else _number_of_groups(used, ids),
        diagonal=not others,
    )


def _pairs(kernel: Kernel, rows: torch.Tensor, others: torch.Tensor, precision: str | None) -> Pairs:
    builder = Builder(rows, others)
    terms = builder.result(kernel.node(builder))
    return Pairs(*terms, same=others is rows, precision=precision)


def _group_ids(name: str, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return the ids as int64, or raise ValueError unless there is one integer a row."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"hsic_sums: {name} is {ids.dtype}, expected integers")
    if ids.shape != rows.shape[:1]:
        raise ValueError(f"hsic_sums: {name} has shape {list(ids.shape)}, expected [{rows.shape[0]}], one id a row")
    if ids.device != rows.device:
        raise ValueError(f"hsic_sums: {name} is on {ids.device}, but x is on {rows.device}")
    return ids.long()


def _number_of_groups(name: str, ids: torch.Tensor) -> int:
    """Return one more than the largest id, or raise ValueError if one is negative."""
    if ids.numel() == 0:
        return 0
    smallest, largest = (int(bound) for bound in ids.aminmax())
    if torch.compiler.is_compiling():
        torch._check(smallest >= 0)
        torch._check(largest >= 0)
    elif smallest < 0:
        raise ValueError(f"hsic_sums: {name} holds the id {smallest}, expected ids from 0")
    return largest + 1
