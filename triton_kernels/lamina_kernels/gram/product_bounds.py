"""Rows as Triton kernels of bounds multiply them, in plain torch: what a product leaves open, as two numbers a row.

A distance is no less than scale <x_i, y_j> + bias_i + bias_j, and no more than that plus slack_i + slack_j.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from lamina_kernels.gram import tiling
from lamina_kernels.gram.base import CHUNK, part_width
from lamina_kernels.gram.bounds import SINGLE, survey
from lamina_kernels.gram.distances import finite, leaf_of
from lamina_kernels.gram.operands import turn_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles import descriptors
from lamina_kernels.tiles.rounding import parts_of, round_to_tf32
from lamina_kernels.tiles.rows import ceil_div

DESCRIBED = ("half", "tf32")
"""How rows are multiplied where descriptors load them with fewer instructions: not as parts, six tiles a chunk."""

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


def operands(sides: Sides, products: str, tile: Tiling, target: str) -> dict[str, Any]:
    """Return what kernels take of both sides, by name.

    Args:
        sides: Both sides.
        products: See `prepare`.
        tile: How the work is cut.
        target: What the kernel is compiled for.
    """
    x, y = sides.x.rows, sides.y.rows
    width, whole, chunk, same = x.shape[1], tile.whole, tile.width or CHUNK[products], y is x
    if tiling.parts(target, products):
        width, whole = part_width(width, chunk), chunk
        x = parts_of(x, tiling.parts(target, products), width)
        y = x if same else parts_of(y, tiling.parts(target, products), width)
    turn = turn_of(width, chunk, tile.together)
    loaded: dict[str, Any] = {"DESCRIPTORS": False}
    if products in DESCRIBED and descriptors.takes_descriptors(target):
        x = descriptors.aligned(x)
        y = x if same else descriptors.aligned(y)
        # They fill the last chunk, and take as many chunks as make a turn for one.
        columns = chunk * turn_of(ceil_div(width, chunk) * chunk, chunk, tile.together)
        columns = columns if width > whole else power_of_2(width)
        sizes = {"x": (tile.rows, columns), "y": (tile.columns, columns)}
        loaded = descriptors.described({"x": x, "y": y}, sizes, target)
        if loaded["DESCRIPTORS"]:
            chunk, turn = columns, 1
    return {
        "x": x,
        "y": y,
        "x_stride": x.stride(0),
        "y_stride": y.stride(0),
        "x_bias": sides.x.bias,
        # Columns behind the last row are far from all.
        "y_bias": filled(sides.y.bias, tile.columns, torch.inf),
        "width": width,
        "CHUNK": power_of_2(width) if width <= whole else chunk,
        "WHOLE": width <= whole,
        "TOGETHER": turn,
        **loaded,
    }


def power_of_2(width: int) -> int:
    """Return the columns of a tile of whole rows: a matrix instruction takes at least 16."""
    return max(16, 1 << (width - 1).bit_length())


def filled(numbers: Tensor, step: int, other: float) -> Tensor:
    """Return numbers and behind them others, up to a multiple of a step."""
    return pad(numbers, (0, -len(numbers) % step), value=other)


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
