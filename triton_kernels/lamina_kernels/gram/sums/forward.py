"""The Triton kernel of sums of the rows of v, weighted by kernel values."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.sums.weights import hidden, weighed
from lamina_kernels.gram.tile import itself_of, values
from lamina_kernels.gram.walk import turns
from lamina_kernels.tiles.dot import dot, rounded_for, weights_as
from lamina_kernels.tiles.load import INDEX, load_rows


@triton.jit
def added(total, lost, x):
    """Return total + x, and what its rounding lost: the sum of any number of tiles is as good as one (Kahan)."""
    x = x - lost
    larger = total + x
    return larger, (larger - total) - x


@triton.jit(do_not_specialize=["n", "m", "splits"])
def sums_kernel(
    bases, parameters,  # see `tile`
    x_tiles, y_tiles,  # descriptors of the rows of the first base, or None
    v,  # [m, values_width]: rows contiguous inside; with descriptors, one of these if there are several columns
    x_term, y_term,  # [n], [m] float32 or None: see `weighed`
    x_groups, y_groups,  # [n], [m] int64, or None: pairs of a group do not count
    out,  # [splits, n, values_width] float32
    n, m, splits, values_width, v_row,
    CODE: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr, VALUE_PRECISION: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Sum ROWS rows of weights times VALUES columns of v (one, without a matrix product, if that is 1).

    The grid is one-dimensional: blocks of rows run fastest, then parts of y, then blocks of columns of v. Nobody else
    writes where a program writes.
    """
    _, split, part_of_v, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0), bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS, x_tiles
    )
    first_value = part_of_v * VALUES
    if VALUES == 1:
        total = tl.zeros([ROWS], tl.float32)
    else:
        total = tl.zeros([ROWS, VALUES], tl.float32)
    lost = total
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS, x_tiles, y_tiles
            )
            itself = itself_of(at, EDGE, SAME)
            columns, columns_valid = at.columns, at.columns_valid
            k = values(products, bases, numbers, at, itself, CODE, BASES)
            if WEIGHTED:
                k = weighed(k, x_term, y_term, at)
            k = hidden(k, 0.0, itself, x_groups, y_groups, at, APART)
            # Rows beyond the edge are 0 in v.
            if VALUES == 1:
                factor = tl.load(v + columns.to(INDEX) * v_row, mask=columns_valid, other=0.0).to(tl.float32)
                part = tl.sum(k * factor[None, :], 1)
            else:
                if x_tiles is not None:
                    v_tile = v.load([at.first, first_value])
                elif tree.base_kind(BASES, 0) == "own":
                    # There the same as below took 20 instructions a pair instead of 16, on Hopper.
                    v_tile = load_rows(v, columns, v_row, columns_valid, first_value, values_width, VALUES)
                else:
                    # What is added to the address of the first row is the same in every tile.
                    v_tile = load_rows(
                        v + at.first.to(INDEX) * v_row, tl.arange(0, COLUMNS), v_row, columns_valid,
                        first_value, values_width, VALUES,
                    )  # fmt: skip
                part = dot(
                    rounded_for(weights_as(k, v_tile), VALUE_PRECISION), v_tile,
                    tl.zeros([ROWS, VALUES], tl.float32), VALUE_PRECISION,
                )  # fmt: skip
            total, lost = added(total, lost, part)  # pyright: ignore[reportGeneralTypeIssues]

    row = (split.to(INDEX) * n + rows) * values_width
    if VALUES == 1:
        tl.store(out + row, total, mask=rows_valid)
    else:
        place = first_value + tl.arange(0, VALUES)
        inside = rows_valid[:, None] & (place < values_width)[None, :]
        tl.store(out + row[:, None] + place[None, :], total, mask=inside)
