"""The distances that selections and counts go by, as pairs of rows with one leaf: a weight times a base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from lamina_kernels.gram import forms
from lamina_kernels.gram.forms import Impl
from lamina_kernels.gram.kernels import Kernel, direction
from lamina_kernels.gram.pairs import Exclude, Pairs, build
from lamina_kernels.gram.support import BY_L1
from lamina_kernels.gram.terms import Builder, Leaf, Node
from lamina_kernels.refusals import refuse

Measure = Literal["squared", "euclidean", "cosine", "dot", "l1"]
"""|x - y|², |x - y|, 1 - cosine, -<x, y>, and the sum of absolute differences."""

MEASURES = ("squared", "euclidean", "cosine", "dot", "l1")


@dataclass(frozen=True)
class _Distance(Kernel):
    """A distance as the leaf of a kernel, but for the root of "euclidean"."""

    measure: Measure

    def node(self, builder: Builder) -> Node:
        if self.measure == "dot":
            # Here the base is -<x, y>.
            return builder.leaf("dot", "identity", 1.0)
        if self.measure == "l1":
            return builder.leaf("norm", "identity", 1.0, norm=1.0)
        if self.measure == "cosine":
            # 1 - <u, v> = |u - v|² / 2 of unit vectors: small ones keep their digits.
            return builder.leaf("square", "identity", 0.5, change=direction)
        return builder.leaf("square", "identity", 1.0)


def pairs(
    op: str,
    x: torch.Tensor,
    y: torch.Tensor | None,
    measure: Measure,
    exclude: Exclude | None,
    precision: str | None,
) -> Pairs:
    """Check the arguments of a reduction by distances; docs/gram.md lists the errors."""
    if measure not in MEASURES:
        raise ValueError(f"{op}: distance is {measure!r}, expected one of {', '.join(map(repr, MEASURES))}")
    return build(op, x, y, _Distance(measure), exclude, precision)


def leaf_of(p: Pairs) -> Leaf:
    """Return the one leaf of these pairs."""
    leaf = p.tree
    assert isinstance(leaf, Leaf)
    return leaf


def choose(op: str, p: Pairs, impl: Impl | None) -> str:
    """Return the form that runs, and log its name; kernels multiply rows, and so have no sums of differences."""
    products = leaf_of(p).base != "norm"
    if impl == "triton" and not products:
        refuse(op, BY_L1)
    return forms.choose(op, p, impl, triton=products)


def finite(rows: torch.Tensor) -> torch.Tensor:
    """Return which rows hold neither NaN nor infinity: others are near nothing."""
    return rows.sum(1, dtype=torch.float64).isfinite()
