"""The Triton kernel of `hsic_sums`."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import dot_of_rows, dot_rows
from lamina_kernels.tiles.load import INDEX, load_rows
from lamina_kernels.tiles.score import NO_ROW, score

# Sums of a tile are float32; sums of tiles are kept in this dtype.
ACROSS_TILES = tl.constexpr(tl.float64)


@triton.jit(do_not_specialize=["n", "m", "groups", "splits"])
def hsic_sums_kernel(
    x, y, x_other, y_other,  # [n, dx], [n, dy], [m, dx], [m, dy]: rows contiguous inside
    x_bias, y_bias, x_other_bias, y_other_bias,  # [n], [n], [m], [m] float32, see `score`; None if linear
    bounds,  # [groups + 1] int64: group g is rows bounds[g] to bounds[g + 1] of x'; None for one group of all
    order,  # [n] int64: where the sums of each row belong; None if rows stand in their order
    sums,  # [splits, 5, n, groups] float64
    n, m, groups, splits, dx, dy,
    x_stride, y_stride, x_other_stride, y_other_stride,
    x_scale, y_scale,
    KERNEL_X: tl.constexpr, KERNEL_Y: tl.constexpr, PRECISION: tl.constexpr,
    DIAGONAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK_X: tl.constexpr, CHUNK_Y: tl.constexpr, WHOLE_X: tl.constexpr, WHOLE_Y: tl.constexpr,
):  # fmt: skip
    """Sum ROWS rows of K * L, K, L and their squares over one part of one group, and write the five sums.

    The grid is one-dimensional: blocks of rows run fastest, then parts of a group, then groups, so that programs
    that run together read the same rows x'. Nobody else writes where a program writes.
    """
    blocks = tl.cdiv(n, ROWS)
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % splits
    group = (tl.program_id(0) // blocks // splits).to(INDEX)

    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < n
    # A chunk as wide as the rows is loaded once, for all columns.
    if WHOLE_X:
        x_tile = load_rows(x, rows, x_stride, rows_valid, 0, dx, CHUNK_X)
    if WHOLE_Y:
        y_tile = load_rows(y, rows, y_stride, rows_valid, 0, dy, CHUNK_Y)
    x_bias_tile, y_bias_tile = 0.0, 0.0
    if KERNEL_X == "rbf":
        x_bias_tile = tl.load(x_bias + rows.to(INDEX), mask=rows_valid, other=0.0)
    if KERNEL_Y == "rbf":
        y_bias_tile = tl.load(y_bias + rows.to(INDEX), mask=rows_valid, other=0.0)

    if bounds is None:
        start, stop = 0, m
    else:
        # Rows are counted in 32 bits: their addresses are not.
        start = tl.load(bounds + group).to(tl.int32)
        stop = tl.load(bounds + group + 1).to(tl.int32)
    share = tl.cdiv(tl.cdiv(stop - start, COLUMNS), splits) * COLUMNS
    first = start + split * share
    last = tl.minimum(first + share, stop)

    product = tl.zeros([ROWS], ACROSS_TILES)
    sums_x = tl.zeros([ROWS], ACROSS_TILES)
    sums_y = tl.zeros([ROWS], ACROSS_TILES)
    square_x = tl.zeros([ROWS], ACROSS_TILES)
    square_y = tl.zeros([ROWS], ACROSS_TILES)
    for place in range(first, last, COLUMNS):
        columns = place + tl.arange(0, COLUMNS)
        valid = columns < last

        if WHOLE_X:
            x_other_tile = load_rows(x_other, columns, x_other_stride, valid, 0, dx, CHUNK_X)
            k = dot_rows(x_tile, x_other_tile, tl.zeros([ROWS, COLUMNS], tl.float32), PRECISION)
        else:
            k = dot_of_rows(
                x, rows, x_stride, rows_valid, x_other, columns, x_other_stride, valid, dx, PRECISION, CHUNK_X
            )
        # Beyond the edge, linear scores are zero because the rows are.
        x_other_bias_tile, y_other_bias_tile = 0.0, 0.0
        if KERNEL_X == "rbf":
            x_other_bias_tile = tl.load(x_other_bias + columns.to(INDEX), mask=valid, other=NO_ROW)
        k = score(k, x_bias_tile, x_other_bias_tile, x_scale, KERNEL_X)

        if WHOLE_Y:
            y_other_tile = load_rows(y_other, columns, y_other_stride, valid, 0, dy, CHUNK_Y)
            l = dot_rows(y_tile, y_other_tile, tl.zeros([ROWS, COLUMNS], tl.float32), PRECISION)  # noqa: E741
        else:
            l = dot_of_rows(  # noqa: E741
                y, rows, y_stride, rows_valid, y_other, columns, y_other_stride, valid, dy, PRECISION, CHUNK_Y
            )
        if KERNEL_Y == "rbf":
            y_other_bias_tile = tl.load(y_other_bias + columns.to(INDEX), mask=valid, other=NO_ROW)
        l = score(l, y_bias_tile, y_other_bias_tile, y_scale, KERNEL_Y)  # noqa: E741

        if DIAGONAL:
            others = rows[:, None] != columns[None, :]
            k = tl.where(others, k, 0.0)
            l = tl.where(others, l, 0.0)  # noqa: E741
        product += tl.sum(k * l, axis=1).to(ACROSS_TILES)
        sums_x += tl.sum(k, axis=1).to(ACROSS_TILES)
        sums_y += tl.sum(l, axis=1).to(ACROSS_TILES)
        square_x += tl.sum(k * k, axis=1).to(ACROSS_TILES)
        square_y += tl.sum(l * l, axis=1).to(ACROSS_TILES)

    if order is None:
        places = rows.to(INDEX)
    else:
        places = tl.load(order + rows.to(INDEX), mask=rows_valid, other=0)
    plane = n.to(INDEX) * groups
    address = sums + split.to(INDEX) * 5 * plane + (places * groups + group)
    tl.store(address, product, mask=rows_valid)
    tl.store(address + plane, sums_x, mask=rows_valid)
    tl.store(address + 2 * plane, sums_y, mask=rows_valid)
    tl.store(address + 3 * plane, square_x, mask=rows_valid)
    tl.store(address + 4 * plane, square_y, mask=rows_valid)
