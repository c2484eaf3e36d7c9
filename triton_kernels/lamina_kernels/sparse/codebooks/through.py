"""Gradients through what has none: a row is replaced by its code, and its gradient is what it is taken to be."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lamina_kernels.tiles.rows import accumulation_dtype

Through = Literal["straight", "rotation"]
TINY = 1e-6
"""A row and a code whose directions are this near to opposite have no rotation onto each other."""


def through(x: Tensor, q: Tensor, how: Through) -> Tensor:
    """Return q, to the bit, with a gradient by x.

    "straight" hands the gradient by q on to x as it is. "rotation" takes q to be |q| / |x| R x, R being the rotation in
    their plane that turns x towards q: the gradient turns and scales likewise. Rows or codes of zeros, and opposite
    ones, have no such rotation; there it is handed on as it is.

    Args:
        x: [n, d].
        q: [n, d], what becomes of it.
        how: `"straight"` or `"rotation"`.

    Source:
        Estimating or propagating gradients through stochastic neurons: Bengio, Léonard and Courville, 2013.
        Restructuring vector quantization with the rotation trick: Fifty et al., 2024.
    """
    moved = x if how == "straight" else _rotated(x, q.detach())
    # What is finite less itself is 0.
    return q.detach() + (moved - moved.detach())


def _rotated(x: Tensor, q: Tensor) -> Tensor:
    """Return |q| / |x| R x, [n, d], as a function of x that is linear: sizes and directions are constants."""
    dtype = accumulation_dtype(x.dtype)
    row, code = x.detach().to(dtype), q.to(dtype)
    row_norm, code_norm = row.norm(dim=1, keepdim=True), code.norm(dim=1, keepdim=True)
    some = (row_norm > 0) & (code_norm > 0)
    row, code = row / row_norm.masked_fill(~some, 1), code / code_norm.masked_fill(~some, 1)
    middle = row + code
    size = middle.norm(dim=1, keepdim=True)
    some &= size > TINY
    middle = middle / size.masked_fill(~some, 1)
    own = x.to(dtype)
    turned = own - 2 * middle * (middle * own).sum(1, keepdim=True) + 2 * code * (row * own).sum(1, keepdim=True)
    return torch.where(some, turned * (code_norm / row_norm.masked_fill(~some, 1)), own).to(x.dtype)
