"""Sums over pairs of rows from products of features, for many pairs of matrices that are held.

The sums of `lamina.similarity.moments` over two rows are inner products of the d x d matrices C_a and D_a; here they
are found for the matrices of each two buckets, [buckets, buckets], so that what is left without a bucket needs no
further look at the matrices, which are made a piece at a time and never kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lamina_kernels.tiles.inner import inner

if TYPE_CHECKING:
    from lamina.similarity.holding import Held, Layout

PIECE = 2**25
"""Bytes of the matrices of all buckets that are made at a time."""

Pairwise = Mapping[str, Tensor]
"""[buckets, buckets] by the names of `lamina.similarity.panels.PAIRWISE` but the totals."""


def feature_products(x: Held, y: Held, layout: Layout, memory: Tensor, *, debiased: bool) -> Pairwise:
    """Return the sums of one pair of matrices over pairs of rows of different groups; the biased over all.

    Args:
        x: One matrix.
        y: The other.
        layout: The order of their rows.
        memory: What `memory_for` returned for the dtype, for matrices on the way: fresh memory would cost a tenth.
        debiased: See above.
    """
    single, equal, count = layout.size == 1, layout.size is not None, len(layout.keys)
    powers, of_sums = (1, 1) if equal else (3, 2)
    if single or not debiased:
        of_sums = 0
    powers = powers if debiased else 1
    kinds = powers + of_sums
    found = torch.zeros(kinds * count, kinds * count, dtype=torch.float64)
    dx, dy = x.x.shape[1], y.x.shape[1]
    room = len(memory) // (kinds * count)
    wide_x = min(dx, int(room**0.5))
    wide_y = min(dy, room // wide_x)
    u, u_groups = layout.u.to(x.x.dtype), torch.from_numpy(layout.sizes).to(x.x.dtype)
    for a, b in product(range(0, dx, wide_x), range(0, dy, wide_y)):
        columns_x, columns_y = slice(a, a + wide_x), slice(b, b + wide_y)
        shape = kinds, count, min(wide_x, dx - a), min(wide_y, dy - b)
        made = memory[: math.prod(shape)].view(shape)
        for bucket in range(count):
            rows, groups = layout.rows[bucket], layout.groups[bucket]
            _weighted(x.x[rows, columns_x], y.x[rows, columns_y], u[rows], made[:powers, bucket])
            if of_sums:
                left, right = x.sums[groups, columns_x], y.sums[groups, columns_y]
                _weighted(left, right, u_groups[groups], made[powers:, bucket])
        found += inner(made.view(kinds * count, -1))
    matrices = found.view(kinds, count, kinds, count).transpose(1, 2)
    if not debiased:
        return {"p00": matrices[0, 0]}
    return _within_left_out(matrices, x, y, layout)


def memory_for(dtype: torch.dtype) -> Tensor:
    """Return the memory that `feature_products` needs."""
    return torch.empty(PIECE // dtype.itemsize, dtype=dtype)


def _weighted(x: Tensor, y: Tensor, u: Tensor, out: Tensor) -> None:
    for power, into in enumerate(out):
        torch.mm(x.T, y * (u**power)[:, None] if power else y, out=into)


def _within_left_out(m: Tensor, x: Held, y: Held, layout: Layout) -> Pairwise:
    """Name the sums, without what pairs of rows within a group add: it lies on the diagonals."""
    equal, single = layout.size is not None, layout.size == 1
    c, d = (0, 0) if single else (0, 1 if equal else 3)
    found = {"p00": m[c, c].clone(), "tau00": m[c, d].clone(), "groups": m[d, d].clone()}
    if not equal:
        found |= {"p10": m[1, 0].clone(), "p20": m[2, 0].clone(), "p11": m[1, 1].clone()}
        found |= {"tau10": m[1, 3].clone(), "tau01": m[0, 4].clone()}
    if layout.alone:
        for matrix in found.values():
            matrix.diagonal().zero_()
        return found
    t = x.along * y.along
    q = t if single else x.within(y)
    u, of_groups = layout.u, torch.from_numpy(layout.sizes.astype(float))
    powers = {"p00": 0, "tau00": 0, "p10": 1, "tau10": 1, "tau01": 1, "p20": 2, "p11": 2}
    for bucket, (rows, groups) in enumerate(zip(layout.rows, layout.groups, strict=True)):
        for name, power in powers.items():
            if name in found and name[0] == "p":
                found[name][bucket, bucket] -= (q[groups] * of_groups[groups] ** power).sum()
            elif name in found:
                found[name][bucket, bucket] -= (t[rows] * u[rows] ** power).sum()
        found["groups"][bucket, bucket] -= (x.norms[groups] * y.norms[groups]).sum()
    return found
