"""Rows as the Triton kernels take them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.radial import RBF
from lamina_kernels.gram.terms import middle
from lamina_kernels.tiles.rounding import round_to_tf32


class Operands(NamedTuple):
    """What `score` needs of the rows x and x' and their kernel.

    Attributes:
        rows: [n, d], each row contiguous inside.
        others: [m, d], likewise.
        bias: [n] float32, or None if the kernel is linear.
        others_bias: [m] float32, likewise.
        scale: What a dot product is multiplied with.
        kernel: The kernel's name in the Triton code.
    """

    rows: torch.Tensor
    others: torch.Tensor
    bias: torch.Tensor | None
    others_bias: torch.Tensor | None
    scale: float
    kernel: str


def prepare(kernel: Kernel, x: torch.Tensor, x_other: torch.Tensor, precision: str) -> Operands:
    """Return the rows in the layout, the position and the rounding that the kernel works on.

    float32 rows under RBF are moved by the mean of x', in which distances do not change: |x|² + |x'|² - 2 <x, x'>
    then cancels less. Rows in half precision would lose digits and stay. For "tf32" the rows are rounded here, so
    that squared norms belong to the numbers that are multiplied; a tensor core would cut digits off.
    """
    shift = middle(x_other).float() if isinstance(kernel, RBF) and x.dtype == torch.float32 else None
    rows = _placed(x, shift, precision)
    others = rows if x_other is x else _placed(x_other, shift, precision)
    if not isinstance(kernel, RBF):
        return Operands(rows, others, None, None, 1.0, "linear")
    # The kernel raises 2 to the exponent.
    scale = float(kernel.scale) * math.log2(math.e)
    bias = _bias(rows, scale)
    return Operands(rows, others, bias, bias if others is rows else _bias(others, scale), 2 * scale, "rbf")


def _placed(x: torch.Tensor, shift: torch.Tensor | None, precision: str) -> torch.Tensor:
    moved = x if shift is None else x - shift
    if precision == "tf32" and x.dtype == torch.float32:
        moved = round_to_tf32(moved)
    return moved if moved.stride(1) == 1 or moved.shape[1] <= 1 else moved.contiguous()


def _bias(rows: torch.Tensor, scale: float) -> torch.Tensor:
    return rows.float().square().sum(1).mul_(-scale)
