"""A tile of lower bounds of distances, [R, C] float32, in Triton: scale <x_i, y_j> + bias_i + bias_j.

`product_bounds` makes the rows and their biases.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import dot_of_chunks, dot_of_rows, dot_of_tiles, dot_rows, taken_apart
from lamina_kernels.tiles.load import INDEX, load_rows

# Farther than any row: the bound of what lies beyond the edge, or is left out.
FAR = tl.constexpr(float("inf"))


class Side(NamedTuple):
    """All rows of one side.

    Attributes:
        rows: [n, width], as they are multiplied, contiguous inside; or parts of them, see `rounding.parts_of`. Or a
            descriptor of these.
        bias: [n] float32; of y up to the end of its last tile, and infinite there.
        groups: [n] int64: pairs of one group are left out; None for no groups.
        stride: Elements from one row to the next.
    """

    rows: Any
    bias: Any
    groups: Any
    stride: Any


class Block(NamedTuple):
    """What is loaded once of some rows of x.

    Attributes:
        first: The first of them.
        rows: [R], which rows.
        valid: [R], whether they exist.
        tile: [R, width], if they are multiplied whole; else anything.
        bias: [R] float32.
        groups: [R] int64, if there are groups; else anything.
    """

    first: tl.tensor
    rows: tl.tensor
    valid: tl.tensor
    tile: tl.tensor
    bias: tl.tensor
    groups: tl.tensor


@triton.jit
def block_of(
    x, first, rows, valid, width,
    PRECISION: tl.constexpr, CHUNK: tl.constexpr, WHOLE: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Return some rows of x, loaded whole (in a chunk at least as wide) or not; parts of rows are not."""
    tile, groups = rows, rows
    if DESCRIPTORS:
        if WHOLE:
            tile = x.rows.load([first, 0])
    elif WHOLE and not taken_apart(x.rows.dtype.element_ty, PRECISION):
        tile = load_rows(x.rows, rows, x.stride, valid, 0, width, CHUNK)
    if x.groups is not None:
        groups = tl.load(x.groups + rows.to(INDEX), mask=valid, other=0)
    return Block(first, rows, valid, tile, tl.load(x.bias + rows.to(INDEX), mask=valid, other=FAR), groups)


@triton.jit
def bounds_of(
    x, block, y, first, columns, valid, width, scale,
    APART: tl.constexpr, PRECISION: tl.constexpr, CHUNK: tl.constexpr, WHOLE: tl.constexpr, TOGETHER: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Return the bounds of a block of rows of x and some rows of y; APART leaves out pairs of a row with itself.

    For rows that are not multiplied whole see `dot_of_chunks`; with DESCRIPTORS, `dot_of_tiles`.
    """
    rows = block.rows
    ROWS: tl.constexpr = rows.shape[0]
    COLUMNS: tl.constexpr = columns.shape[0]
    none = tl.zeros([ROWS, COLUMNS], tl.float32)
    if DESCRIPTORS:
        if WHOLE:
            products = dot_rows(block.tile, y.rows.load([first, 0]), none, PRECISION)
        else:
            products = dot_of_tiles(x.rows, block.first, y.rows, first, width, PRECISION, ROWS, COLUMNS, CHUNK)
    elif taken_apart(x.rows.dtype.element_ty, PRECISION) or (TOGETHER > 0 and not WHOLE):
        products = dot_of_chunks(
            x.rows, rows, x.stride, block.valid, y.rows, first, y.stride, valid, width, PRECISION, CHUNK,
            0 if WHOLE else TOGETHER,
        )  # fmt: skip
    elif WHOLE:
        y_tile = load_rows(y.rows, columns, y.stride, valid, 0, width, CHUNK)
        products = dot_rows(block.tile, y_tile, none, PRECISION)
    else:
        products = dot_of_rows(
            x.rows, rows, x.stride, block.valid, y.rows, columns, y.stride, valid, width, PRECISION, CHUNK
        )
    bounds = products * scale + (block.bias[:, None] + tl.load(y.bias + columns.to(INDEX))[None, :])
    if APART:  # noqa: SIM102
        # Few tiles hold a pair of a row with itself.
        if (first < block.first + ROWS) & (block.first < first + COLUMNS):
            bounds = tl.where(rows[:, None] == columns[None, :], FAR, bounds)
    if x.groups is not None:
        theirs = tl.load(y.groups + columns.to(INDEX), mask=valid, other=0)
        bounds = tl.where(block.groups[:, None] == theirs[None, :], FAR, bounds)
    return bounds
