"""The Triton kernel of `hsic_sums`."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.tile import at_of, itself_of, numbers_of, products_of, rows_of, values
from lamina_kernels.gram.walk import turns, walk_of
from lamina_kernels.tiles.load import INDEX

# Sums of a tile are float32; sums of tiles are kept in this dtype.
ACROSS_TILES = tl.constexpr(tl.float64)


@triton.jit(do_not_specialize=["n", "m", "groups", "splits"])
def hsic_sums_kernel(
    x_bases, y_bases, x_parameters, y_parameters,  # of K and of L, see `tile`
    bounds,  # [groups + 1] int64: group g is rows bounds[g] to bounds[g + 1] of x'; None for one group of all
    order,  # [n] int64: where the sums of each row belong; None if rows stand in their order
    sums,  # [splits, 5, n, groups] float64
    n, m, groups, splits,
    X_CODE: tl.constexpr, X_BASES: tl.constexpr, X_PRECISION: tl.constexpr,
    Y_CODE: tl.constexpr, Y_BASES: tl.constexpr, Y_PRECISION: tl.constexpr,
    DIAGONAL: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
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
    x_numbers, y_numbers = numbers_of(x_parameters, X_CODE), numbers_of(y_parameters, Y_CODE)
    x_left, y_left = rows_of(x_bases, rows, rows_valid, X_BASES), rows_of(y_bases, rows, rows_valid, Y_BASES)
    if bounds is None:
        start, stop = 0, m
    else:
        # Rows are counted in 32 bits: their addresses are not.
        start = tl.load(bounds + group).to(tl.int32)
        stop = tl.load(bounds + group + 1).to(tl.int32)
    walk = walk_of(block * ROWS - start, split, splits, stop - start, DIAGONAL, ROWS, COLUMNS)

    product = tl.zeros([ROWS], ACROSS_TILES)
    sums_x = tl.zeros([ROWS], ACROSS_TILES)
    sums_y = tl.zeros([ROWS], ACROSS_TILES)
    square_x = tl.zeros([ROWS], ACROSS_TILES)
    square_y = tl.zeros([ROWS], ACROSS_TILES)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at = at_of(walk, turn, rows, rows_valid, start, stop, EDGE, COLUMNS)
            itself = itself_of(at, EDGE, DIAGONAL)
            k = products_of(x_bases, x_left, at, itself, X_BASES, X_PRECISION)
            k = values(k, x_bases, x_numbers, at, itself, X_CODE, X_BASES)
            l = products_of(y_bases, y_left, at, itself, Y_BASES, Y_PRECISION)  # noqa: E741
            l = values(l, y_bases, y_numbers, at, itself, Y_CODE, Y_BASES)  # noqa: E741
            if EDGE:
                counts = at.columns_valid[None, :]
                if itself is not None:
                    counts = counts & (itself == 0)
                k = tl.where(counts, k, 0.0)
                l = tl.where(counts, l, 0.0)  # noqa: E741
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
