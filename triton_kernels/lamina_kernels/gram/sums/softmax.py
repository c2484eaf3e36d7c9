"""The Triton kernel of means under a softmax of kernel values."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.sums.forward import added
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.sums.weights import hidden
from lamina_kernels.gram.tile import itself_of, values
from lamina_kernels.gram.tile_functions import exp
from lamina_kernels.gram.walk import turns
from lamina_kernels.tiles.dot import dot, rounded_for, weights_as
from lamina_kernels.tiles.load import INDEX, load_rows

LN2 = tl.constexpr(0.6931471805599453)
# What a pair has that does not count.
NOTHING = tl.constexpr(float("-inf"))


@triton.jit(do_not_specialize=["n", "m", "splits"])
def softmax_kernel(
    bases, parameters,  # see `tile`
    v,  # [m, values_width]: rows contiguous inside
    y_term,  # [m] float32, added to the values; or None
    x_groups, y_groups,  # [n], [m] int64, or None: pairs of a group do not count
    out, lse,  # [splits, n, values_width], [splits, n] float32
    n, m, splits, values_width, v_row,
    CODE: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr, VALUE_PRECISION: tl.constexpr,
    SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Average VALUES columns of v (none if that is 0) for ROWS rows, and write the log-sum-exp.

    Sums are relative to the largest value so far, and shrink when it rises. The grid is that of `sums_kernel`.
    """
    _, split, part, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0), bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
    )
    top = tl.full([ROWS], NOTHING, tl.float32)
    mass = tl.zeros([ROWS], tl.float32)
    mass_lost = tl.zeros([ROWS], tl.float32)
    if VALUES > 1:
        total = tl.zeros([ROWS, VALUES], tl.float32)
    else:
        total = tl.zeros([ROWS], tl.float32)
    lost = total
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
            )
            itself = itself_of(at, EDGE, SAME)
            columns, columns_valid = at.columns, at.columns_valid
            s = values(products, bases, numbers, at, itself, CODE, BASES)
            if y_term is not None:
                term = tl.load(y_term + columns.to(INDEX), mask=columns_valid, other=0.0)
                s += term[None, :]
            if EDGE:
                s = tl.where(columns_valid[None, :], s, NOTHING)
            s = hidden(s, NOTHING, itself, x_groups, y_groups, at, APART)

            risen = tl.maximum(top, tl.max(s, 1))
            start = tl.where(risen == NOTHING, 0.0, risen)
            decay = exp(top - start)
            w = exp(s - start[:, None])
            mass, mass_lost = added(mass * decay, mass_lost * decay, tl.sum(w, 1))  # pyright: ignore[reportGeneralTypeIssues]
            if VALUES == 1:
                factor = tl.load(v + columns.to(INDEX) * v_row, mask=columns_valid, other=0.0).to(tl.float32)
                mean = tl.sum(w * factor[None, :], 1)
                total, lost = added(total * decay, lost * decay, mean)  # pyright: ignore[reportGeneralTypeIssues]
            if VALUES > 1:
                v_tile = load_rows(v, columns, v_row, columns_valid, part * VALUES, values_width, VALUES)
                mean = dot(
                    rounded_for(weights_as(w, v_tile), VALUE_PRECISION), v_tile,
                    tl.zeros([ROWS, VALUES], tl.float32), VALUE_PRECISION,
                )  # fmt: skip
                total, lost = added(total * decay[:, None], lost * decay[:, None], mean)  # pyright: ignore[reportGeneralTypeIssues]
            top = risen

    # A row that has no pair is 0, its logarithm that of 0.
    none = mass == 0.0
    mass = tl.where(none, 1.0, mass)
    row = split.to(INDEX) * n + rows
    if part == 0:
        tl.store(lse + row, tl.where(none, NOTHING, top + tl.log2(mass) * LN2), mask=rows_valid)
    if VALUES == 1:
        tl.store(out + row * values_width, total / mass, mask=rows_valid)
    if VALUES > 1:
        place = part * VALUES + tl.arange(0, VALUES)
        inside = rows_valid[:, None] & (place < values_width)[None, :]
        tl.store(out + (row * values_width)[:, None] + place[None, :], total / mass[:, None], mask=inside)
