"""Rows as Triton kernels of bounds multiply them, in plain torch: what a product leaves open, as two numbers a row.

A distance is no less than scale <x_i, y_j> + bias_i + bias_j, and no more than that plus slack_i + slack_j.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.bounds import SINGLE, survey
from lamina_kernels.gram.distances import finite, leaf_of
from lamina_kernels.gram.operands import part_width, turn_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles.rounding import parts_of, round_to_tf32

# How much numbers in single precision are rounded before they are multiplied.
_ROUNDED = {"tf32": 2.0**-11, "bf16x3": 2.0**-16}


class Side(NamedTuple):
    """Rows of one side.

    Attributes:
        rows: [n, width], zeros where they are not finite; each row contiguous inside.
        bias: [n] float32, see the module's text; infinite where they are not finite.
        slack: [n] float32, likewise; 0 there.
        lost: [n], which of them are not finite.
    """

    rows: Tensor
    bias: Tensor
    slack: Tensor
    lost: Tensor


class Sides(NamedTuple):
    """Both sides.

    Attributes:
        x: Rows of x.
        y: Rows of y.
        scale: What products are multiplied with.
        factor: What rows were multiplied with, a power of 2: bounds are of distances times its square.
    """

    x: Side
    y: Side
    scale: float
    factor: float


def prepare(p: Pairs, products: str) -> Sides:
    """Return both sides of pairs with one leaf, for bounds without its weight.

    Args:
        p: The pairs.
        products: How they are multiplied: "half", or the precision of float32.

    Raises:
        ValueError: Rows so large that their squares overflow double precision.
    """
    shift, largest = survey(p)
    # Squares are to be normal numbers of single precision.
    factor = 1.0 if largest == 0 or SINGLE[0] < largest < SINGLE[1] else 2.0 ** -math.frexp(largest)[1]
    x = _side(p, p.x, products, shift, factor)
    y = x if p.same else _side(p, p.y, products, shift, factor)
    return Sides(x, y, -1.0 if leaf_of(p).base == "dot" else -2.0, factor)


def operands(sides: Sides, parts: int, tile: Tiling, chunk: int) -> dict[str, Any]:
    """Return what kernels take of the rows, by name.

    Args:
        sides: Both sides.
        parts: The parts that float32 rows are taken apart into, see `parts_of`; 0 for rows that stay.
        tile: How the work is cut.
        chunk: Columns that are multiplied at a time, of rows that are not multiplied whole.
    """
    x, y = sides.x.rows, sides.y.rows
    width, whole = x.shape[1], tile.whole
    if parts:
        same, width, whole = y is x, part_width(width, chunk), chunk
        x = parts_of(x, parts, width)
        y = x if same else parts_of(y, parts, width)
    return {
        "x": x,
        "y": y,
        "x_stride": x.stride(0),
        "y_stride": y.stride(0),
        "width": width,
        # A matrix instruction takes at least 16 columns.
        "CHUNK": max(16, 1 << (width - 1).bit_length()) if width <= whole else chunk,
        "WHOLE": width <= whole,
        "TOGETHER": turn_of(width, chunk, tile.together),
    }


def _side(p: Pairs, rows: Tensor, products: str, shift: Tensor | None, factor: float) -> Side:
    """Return one side.

    A bound is a distance less e of both squared norms; inner products are off by e |x| |y|, at most half of that.
    Tensor cores cut digits off when they add: two units of rounding a product, where a CPU has one.
    """
    lost = ~finite(rows)
    rows = rows if not bool(lost.any()) else rows.masked_fill(lost[:, None], 0)
    if shift is not None and rows.dtype == torch.float32:
        # Rows in half precision would lose digits and stay.
        rows = (rows - shift).masked_fill(lost[:, None], 0)
    rows = rows if factor == 1 else (rows * factor).to(p.x.dtype)
    tiny = torch.finfo(torch.float32).tiny
    part = 2 * (rows.shape[1] + 10) * torch.finfo(torch.float32).eps
    if products == "tf32":
        rows = round_to_tf32(rows)
    part += 8 * _ROUNDED.get(products, 0.0)
    squares = rows.float().square().sum(1, dtype=torch.float64)
    bias = -part / 2 * squares if leaf_of(p).base == "dot" else (1 - part) * squares - tiny
    slack = 2 * part * squares + 2 * tiny
    rows = rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous()
    return Side(rows, bias.float().masked_fill(lost, torch.inf), slack.float().masked_fill(lost, 0), lost)
