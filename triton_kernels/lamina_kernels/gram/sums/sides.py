"""The Triton kernel of log-sum-exps of kernel values along rows and along columns, from one walk over the pairs.

A program has some blocks of rows and some of columns. What the rows have so far stays in registers, what the columns
have in a place of memory that is the program's own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.sums.program import tile_of
from lamina_kernels.gram.sums.softmax import LN2, NOTHING
from lamina_kernels.gram.tile import numbers_of, rows_of, values
from lamina_kernels.gram.tile_functions import exp
from lamina_kernels.gram.walk import Walk, turns
from lamina_kernels.tiles.load import INDEX

# Sums of a tile are float32; sums of tiles are kept in this dtype.
ACROSS_TILES = tl.constexpr(tl.float64)


@triton.jit
def with_tile(top, mass, s, AXIS: tl.constexpr):
    """Return the largest value, and the sum of exponentials relative to it, of what was there and of a tile."""
    risen = tl.maximum(top, tl.max(s, AXIS))
    start = tl.where(risen == NOTHING, 0.0, risen)
    more = tl.sum(exp(s - tl.expand_dims(start, AXIS)), AXIS)
    return risen, mass * exp(top - start).to(ACROSS_TILES) + more.to(ACROSS_TILES)


@triton.jit(do_not_specialize=["n", "m", "down", "span", "stretch"])
def sides_kernel(
    bases, parameters,  # see `tile`
    of_rows,  # [parts of the columns, n] float32: log-sum-exps over these columns
    tops, masses,  # [down, m] float32, -inf, and float64, zeros: the same of columns, see `with_tile`
    n, m,
    down,  # parts of the rows
    span, stretch,  # blocks of rows of a part, and blocks of columns
    CODE: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the log-sum-exps of a part of the rows and a part of the columns.

    Nobody else writes where a program writes.
    """
    upper, left = tl.program_id(0) % down, tl.program_id(0) // down
    numbers = numbers_of(parameters, CODE)
    start = left * stretch
    stop = tl.minimum(start + stretch, tl.cdiv(m, COLUMNS))
    own = upper.to(INDEX) * m
    for block in range(upper * span, tl.minimum((upper + 1) * span, tl.cdiv(n, ROWS))):
        rows = block * ROWS + tl.arange(0, ROWS)
        rows_valid = rows < n
        x_rows = rows_of(bases, rows, rows_valid, BASES)
        # Tiles with rows or columns beyond the last one.
        edge = tl.where((block + 1) * ROWS <= n, tl.maximum(tl.minimum(m // COLUMNS, stop), start), start)
        walk = Walk(start, start, start, edge, stop)
        top = tl.full([ROWS], NOTHING, tl.float32)
        mass = tl.zeros([ROWS], ACROSS_TILES)
        for EDGE in tl.static_range(0, 2):
            for turn in range(turns(walk, EDGE)):
                at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                    bases, x_rows, walk, turn, rows, rows_valid, m, EDGE, False, BASES, PRECISION, COLUMNS
                )
                s = values(products, bases, numbers, at, None, CODE, BASES)
                if EDGE:
                    s = tl.where(rows_valid[:, None] & at.columns_valid[None, :], s, NOTHING)
                top, mass = with_tile(top, mass, s, 1)  # pyright: ignore[reportGeneralTypeIssues]
                place = own + at.columns
                column_top = tl.load(tops + place, mask=at.columns_valid, other=NOTHING)
                column_mass = tl.load(masses + place, mask=at.columns_valid, other=0.0)
                column_top, column_mass = with_tile(column_top, column_mass, s, 0)  # pyright: ignore[reportGeneralTypeIssues]
                tl.store(tops + place, column_top, mask=at.columns_valid)
                tl.store(masses + place, column_mass, mask=at.columns_valid)
        none = mass == 0.0
        found = top + tl.log2(tl.where(none, 1.0, mass).to(tl.float32)) * LN2
        tl.store(of_rows + left.to(INDEX) * n + rows, tl.where(none, NOTHING, found), mask=rows_valid)
        # What a thread stored of columns, others load with the next rows.
        tl.debug_barrier()
