"""The Triton kernel of the gradients of sums by rows that are a norm of differences apart: one dimension at a time."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.backward import Given, coefficients, of_no_parameters, store_parameters
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.tile import itself_of, raised
from lamina_kernels.gram.walk import turns
from lamina_kernels.tiles.load import INDEX


@triton.jit
def sign(x):
    """Return 1, 0 or -1."""
    return tl.where(x > 0.0, 1.0, tl.where(x < 0.0, -1.0, 0.0))


@triton.jit
def of_distance(c, distances, NORM: tl.constexpr):
    """Return c times what the derivatives of a distance have in common: distance^(1 - p), 0 for a distance of 0."""
    if NORM == 1 or float("inf") == NORM:
        return c
    else:
        far = distances > 0.0
        return tl.where(far, c * tl.exp2(tl.log2(tl.where(far, distances, 1.0)) * (1.0 - NORM)), distances)


@triton.jit
def of_difference(apart, distances, NORM: tl.constexpr):
    """Return the rest of the derivative of a distance by x, from x - y in one dimension."""
    if NORM == 1:
        return sign(apart)
    elif float("inf") == NORM:
        return tl.where(tl.abs(apart) == distances, sign(apart), 0.0)
    else:
        return sign(apart) * raised(tl.abs(apart), NORM - 1.0)


@triton.jit
def pull_differences(c, base, distances, at, into, n, NORM: tl.constexpr):
    """Add sum_j c_ij d|x_i - y_j| / dx_i to the gradients of rows in memory, whose dimensions stand n apart."""
    c = of_distance(c, distances, NORM)
    x = base.x + at.rows.to(INDEX) * base.x_row
    y = base.y + at.columns.to(INDEX) * base.y_row
    for dimension in range(base.width):
        step = tl.cast(dimension, INDEX)
        a = tl.load(x + step * base.x_column, mask=at.rows_valid, other=0.0).to(tl.float32)
        b = tl.load(y + step * base.y_column, mask=at.columns_valid, other=0.0).to(tl.float32)
        pulled = tl.sum(c * of_difference(a[:, None] - b[None, :], distances, NORM), 1)
        place = into + step * n
        tl.store(place, tl.load(place, mask=at.rows_valid, other=0.0) + pulled, mask=at.rows_valid)


@triton.jit(do_not_specialize=["n", "m", "splits", "g_width"])
def norm_gradients_kernel(
    bases, parameters, g, v, x_term, y_term, x_groups, y_groups,  # see `gradients_kernel`
    out,  # [splits, width of the base OF, n] float32, zeros
    by_leaf,  # [leaves, 2, splits, blocks] float64, or None
    n, m, splits, g_width, g_row, v_row,
    CODE: tl.constexpr, BASES: tl.constexpr, OF: tl.constexpr, PRECISION: tl.constexpr, G_PRECISION: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, G_CHUNK: tl.constexpr,
):  # fmt: skip
    """Add up the gradients of ROWS rows of the base OF, a "norm"; see `gradients_kernel`."""
    block, split, _, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0), bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
    )
    given = Given(g, v, g_width, g_row, v_row, x_term, y_term, x_groups, y_groups)
    base = bases[OF]
    NORM: tl.constexpr = tree.norm(BASES, OF)
    into = out + split.to(INDEX) * base.width * n + rows
    of_parameters = of_no_parameters(ROWS, CODE)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
            )
            itself = itself_of(at, EDGE, SAME)
            c, of_parameters = coefficients(  # pyright: ignore[reportGeneralTypeIssues]
                given, of_parameters, products, bases, numbers, at, itself,
                CODE, BASES, OF, G_PRECISION, G_CHUNK, WEIGHTED, SAME, APART, EDGE, by_leaf is not None,
            )  # fmt: skip
            pull_differences(c, base, products[OF], at, into, n, NORM)
            # What a thread stored, others load.
            tl.debug_barrier()
    if by_leaf is not None:
        store_parameters(by_leaf, of_parameters, block, split, tl.cdiv(n, ROWS), splits, CODE)
