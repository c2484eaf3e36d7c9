"""The Triton kernel of the gradients of sums by wide rows: kernel values are made once, whatever the width.

A program keeps the coefficients of SPAN tiles in a room of its own in memory: it stores them, waits for its threads,
and multiplies them with the rows of y, some columns at a time. What it adds to the gradients in memory it adds once for
all of these tiles.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.backward import (
    Given,
    coefficients,
    of_no_parameters,
    pulls,
    rows_to_pull,
    store_parameters,
)
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.tile import itself_of
from lamina_kernels.gram.walk import tile_at, turns
from lamina_kernels.tiles.dot import dot, rounded_for
from lamina_kernels.tiles.load import INDEX, load_rows


@triton.jit(do_not_specialize=["n", "m", "splits", "g_width", "items", "programs"])
def wide_gradients_kernel(
    bases, parameters, g, v, x_term, y_term, x_groups, y_groups,  # see `gradients_kernel`
    room,  # [programs, SPAN, ROWS, COLUMNS], in what coefficients are multiplied as
    out,  # [splits, n, width of the base OF] float32, zeros
    by_leaf,  # [leaves, 2, splits, blocks] float64, or None
    n, m, splits, g_width, g_row, v_row,
    items, programs,  # blocks of rows times parts of y, and how many programs share them
    CODE: tl.constexpr, BASES: tl.constexpr, OF: tl.constexpr, PRECISION: tl.constexpr, G_PRECISION: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, G_CHUNK: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """Add up the gradients of ROWS rows of the base OF for each item, WIDTH columns at a time; see `gradients_kernel`.

    A program takes every `programs`-th item: there are as many rooms as programs, however many rows.
    """
    given = Given(g, v, g_width, g_row, v_row, x_term, y_term, x_groups, y_groups)
    MOVES: tl.constexpr = tree.moves(BASES, OF)  # pyright: ignore[reportAssignmentType]
    SIZE: tl.constexpr = ROWS * COLUMNS
    base, width = bases[OF], bases[OF].width
    kept = room + tl.program_id(0).to(INDEX) * (SPAN * SIZE)
    flat = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    place = tl.arange(0, WIDTH)
    for item in range(tl.program_id(0), items, programs):
        block, split, _, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
            item, bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
        )
        into = out + ((tl.cast(split, INDEX) * n + rows) * width)[:, None]
        own = tl.zeros([ROWS], tl.float32)
        of_parameters = of_no_parameters(ROWS, CODE)
        for EDGE in tl.static_range(0, 2):
            for start in range(0, turns(walk, EDGE), SPAN):
                stop = tl.minimum(start + SPAN, turns(walk, EDGE))
                for turn in range(start, stop):
                    at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                        bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
                    )
                    itself = itself_of(at, EDGE, SAME)
                    c, of_parameters = coefficients(  # pyright: ignore[reportGeneralTypeIssues]
                        given, of_parameters, products, bases, numbers, at, itself,
                        CODE, BASES, OF, G_PRECISION, G_CHUNK, WEIGHTED, SAME, APART, EDGE, by_leaf is not None,
                    )  # fmt: skip
                    c = rounded_for(c.to(room.dtype.element_ty), pulls(PRECISION))
                    tl.store(kept + (turn - start) * SIZE + flat, c)
                    if MOVES:
                        own += tl.sum(c.to(tl.float32), 1)
                # What a thread stored, others load.
                tl.debug_barrier()
                for first in range(0, width, WIDTH):
                    pulled = tl.zeros([ROWS, WIDTH], tl.float32)
                    for turn in range(start, stop):
                        columns = tile_at(walk, turn, EDGE) * COLUMNS + tl.arange(0, COLUMNS)
                        c = tl.load(kept + (turn - start) * SIZE + flat)
                        y_tile = rows_to_pull(base, columns, columns < m, first, WIDTH)
                        pulled = dot(c, y_tile, pulled, pulls(PRECISION))
                    inside = rows_valid[:, None] & (first + place < width)[None, :]
                    before = tl.load(into + (first + place)[None, :], mask=inside, other=0.0)
                    tl.store(into + (first + place)[None, :], before + pulled, mask=inside)
                # And the next tiles wait until these are read.
                tl.debug_barrier()

        if MOVES:
            for first in range(0, width, WIDTH):
                inside = rows_valid[:, None] & (first + place < width)[None, :]
                x_tile = load_rows(base.x, rows, base.x_row, rows_valid, first, width, WIDTH)
                pulled = tl.load(into + (first + place)[None, :], mask=inside, other=0.0)
                moved = x_tile.to(tl.float32) * own[:, None] - pulled
                tl.store(into + (first + place)[None, :], moved, mask=inside)
        if by_leaf is not None:
            store_parameters(by_leaf, of_parameters, block, split, tl.cdiv(n, ROWS), splits, CODE)
