"""The checked arguments of what compares kernels of the same rows, as all forms take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.pairs import Pairs, build, group_ids
from lamina_kernels.gram.terms import middle

TILE = 64
"""Rows of a tile of the Triton kernel, which holds whole groups."""


@dataclass(frozen=True)
class Layers:
    """Representations of the same n rows, each with its kernel; the rows of a group stand together.

    Attributes:
        pairs: The pairs of rows of each representation.
        left: How many of them are compared with those behind; all are compared with all where there are none behind.
        own: Whether those that are compared with others are compared with themselves too.
        diagonal: Whether pairs of a row with itself count, and those within groups: for the biased estimate.
        sizes: [groups] int64, the rows of each group; None where every row is a group. Compiled code, which does not
            know how many groups there are, has as many as rows; those without rows stand last.
        size: How many rows each group has; 0 where they differ, or are not known yet.
        features: Whether products of features take fewer operations than kernel values.
    """

    pairs: tuple[Pairs, ...]
    left: int
    own: bool
    diagonal: bool
    sizes: Tensor | None = None
    size: int = 1
    features: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.pairs[0].n

    @property
    def dtype(self) -> torch.dtype:
        """What kernel values are."""
        return self.pairs[0].dtype

    @property
    def compared(self) -> list[tuple[int, int]]:
        """Which are compared with each other, the smaller number first."""
        count = len(self)
        if self.left == count:
            return [(a, b) for a in range(count) for b in range(a, count)]
        own = [(a, a) for a in range(count)] if self.own else []
        return own + [(a, b) for a in range(self.left) for b in range(self.left, count)]


def gather(
    op: str,
    rows: Mapping[str, Tensor],
    kernels: Sequence[Kernel],
    *,
    left: int,
    own: bool,
    groups: Tensor | None,
    biased: bool,
    precision: str | None,
) -> Layers:
    """Check the arguments, and put the rows into the order of their groups.

    Args:
        op: The op's name, for errors.
        rows: The representations by the names that the caller gave them.
        kernels: As many.
        left: See `Layers`.
        own: See `Layers`.
        groups: [n] integers, or None.
        biased: Whether all pairs of rows count.
        precision: See `Pairs`.
    """
    checks.matrices(op, **rows)
    (first, x), *others = rows.items()
    for name, other in others:
        checks.same_rows(op, **{first: x, name: other})
    if groups is not None and biased:
        raise ValueError(f"{op}: groups are given for a biased estimate, which is made of all pairs of rows")
    sizes, size, order = (None, 1, None) if groups is None else _sorted(group_ids(op, "the rows", groups, x))
    count = len(x) if sizes is None else len(sizes)
    # Compiled code has as many sizes as rows: there the mean over no quadruples is NaN.
    if count < (1 if biased else 4):
        least = "one row" if biased else "four groups" if groups is not None else "four rows"
        kind = "a biased" if biased else "an unbiased"
        raise ValueError(f"{op}: {len(x)} rows in {count} groups, {kind} estimate needs at least {least}")
    pairs = tuple(
        build(op, each if order is None else each[order], None, kernel, None, precision)
        for each, kernel in zip(rows.values(), kernels, strict=True)
    )
    layers = Layers(pairs, left, own, biased, sizes if size != 1 else None, size)
    if _by_features(layers):
        return replace(layers, features=True)
    return replace(layers, pairs=tuple(map(centered, pairs)))


def fits(layers: Layers) -> bool:
    """Return whether each group fits into a tile of the Triton kernel; compiled code cannot look, its operator does."""
    if layers.sizes is None or torch.compiler.is_compiling():
        return True
    return (layers.size or int(layers.sizes.max())) <= TILE


def _sorted(ids: Tensor) -> tuple[Tensor, int, Tensor]:
    """Return the sizes of the groups and the size of all, see `Layers`, and the rows in the order of their groups."""
    ordered, order = ids.sort(stable=True)
    numbers = ordered.diff(prepend=ordered[:1]).ne(0).cumsum(0)
    sizes = torch.zeros_like(ids).index_add(0, numbers, torch.ones_like(ids))
    if torch.compiler.is_compiling():
        return sizes, 0, order
    sizes = sizes[sizes > 0]
    equal = len(sizes) > 0 and bool((sizes == sizes[0]).all())
    return sizes, int(sizes[0]) if equal else 0, order


def centered(p: Pairs) -> Pairs:
    """Return dot products of rows that are moved by their mean: HSIC is the same, and less is rounded away."""
    if not p.linear:
        return p
    rows = p.x.to(p.dtype) - middle(p.x).to(p.dtype)
    return replace(p, x=rows, y=rows)


def _by_features(layers: Layers) -> bool:
    if layers.sizes is not None or not all(p.linear for p in layers.pairs):
        return False
    n, widths = layers.n, [p.x.shape[1] for p in layers.pairs]
    features = sum(2 * n * widths[a] * widths[b] for a, b in layers.compared)
    return features < n * n * (sum(widths) + len(layers.compared))
