"""The product of a linear kernel's matrix with V, which associates: X Yᵀ V = X (Yᵀ V)."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.tiles.rows import accumulation_dtype, tiles

BLOCK = 4096
"""Rows that are converted and multiplied at a time."""


def cheaper(p: Pairs, v: Tensor) -> bool:
    """Return whether the kernel is a dot product, all pairs count, and (Yᵀ V) first takes fewer operations."""
    if not p.linear or p.apart or p.x_groups is not None:
        return False
    d, k = p.x.shape[1], v.shape[1]
    return (p.n + p.m) * d * k <= p.n * p.m * (d + k)


def product(p: Pairs, v: Tensor) -> Tensor:
    """Return w X (Yᵀ V), [n, width of v], differentiable by torch itself, a tile of rows at a time.

    Yᵀ V is only as large as a row of x times a row of v. Tiles are converted to the dtype that sums are kept in before
    they are multiplied; only the product is rounded to the dtype of x.
    """
    x, y, dtype = p.x, p.y, accumulation_dtype(p.x.dtype)
    moment = torch.zeros(y.shape[1], v.shape[1], dtype=dtype, device=x.device)
    for rows in tiles(p.m, BLOCK):
        moment = torch.addmm(moment, y[rows].to(dtype).T, v[rows].to(dtype))
    moment = moment * p.parameters[0, 0].to(dtype)
    found = x.new_empty(p.n, v.shape[1])
    for rows in tiles(p.n, BLOCK):
        found[rows] = (x[rows].to(dtype) @ moment).to(x.dtype)
    return found
