"""The Triton kernel that counts pairs by their distance: bounds decide, and what they leave open is measured.

A pair whose bounds lie on both sides of a limit is measured where it is found, by differences in float64: of each row
of a tile one such pair at a time, until none is left. Most tiles hold none.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.bounds_tile import Side, block_of, bounds_of
from lamina_kernels.tiles.load import INDEX, load_rows

# What pairs that bounds leave open are measured in.
MEASURED = tl.constexpr(tl.float64)


@triton.jit(do_not_specialize=["n", "m", "splits", "edges"])
def counts_kernel(
    x, y,  # [n, width], [m, width]: rows as they are multiplied, contiguous inside; or descriptors of them
    x_own, y_own,  # [n, own_width], [m, own_width]: rows as they came
    x_bias, y_bias, x_slack, y_slack,  # [n], [whole tiles of m] float32: see `product_bounds`
    x_groups, y_groups,  # [n], [m] int64: pairs of one group are left out; None for no groups
    below, above,  # float32, no larger and no smaller than the limits, in units of bounds: [n], or [edges]
    limits,  # float64: the largest distance that counts; likewise
    out,  # [splits, n] int32, or [splits, blocks, EDGES] int64
    n, m, splits, edges, width, own_width,
    x_stride, y_stride, x_own_stride, y_own_stride,
    scale,
    APART: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, EDGES: tl.constexpr,
    CHUNK: tl.constexpr, WHOLE: tl.constexpr, TOGETHER: tl.constexpr, DESCRIPTORS: tl.constexpr,
    OWN_CHUNK: tl.constexpr,
):  # fmt: skip
    """Count, for ROWS rows and one part of the columns, the pairs up to a limit.

    The limit is that of the row if EDGES is 0; else there are `edges` limits for all rows, at most EDGES, and the pairs
    up to each are counted for all rows together. APART leaves out pairs of a row with itself.
    """
    blocks = tl.cdiv(n, ROWS)
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks

    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < n
    left, right = Side(x, x_bias, x_groups, x_stride), Side(y, y_bias, y_groups, y_stride)
    own = block_of(left, block * ROWS, rows, rows_valid, width, PRECISION, CHUNK, WHOLE, DESCRIPTORS)
    loose = tl.load(x_slack + rows.to(INDEX), mask=rows_valid, other=0.0)
    if EDGES == 0:
        total = tl.zeros([ROWS], tl.int32)
        low = tl.load(below + rows.to(INDEX), mask=rows_valid, other=0.0)
        high = tl.load(above + rows.to(INDEX), mask=rows_valid, other=0.0)
        limit = tl.load(limits + rows.to(INDEX), mask=rows_valid, other=0.0)
    else:
        total = tl.zeros([EDGES], tl.int64)

    share = tl.cdiv(tl.cdiv(m, COLUMNS), splits) * COLUMNS
    first = split * share
    last = tl.minimum(first + share, m)
    for place in range(first, last, COLUMNS):
        columns = place + tl.arange(0, COLUMNS)
        valid = columns < last
        bounds = bounds_of(
            left, own, right, place, columns, valid, width, scale,
            APART, PRECISION, CHUNK, WHOLE, TOGETHER, DESCRIPTORS,
        )  # fmt: skip
        slack = loose + tl.max(tl.load(y_slack + columns.to(INDEX)), 0)
        if EDGES == 0:
            total += _within(
                bounds, low - slack, high, limit, x_own, rows, x_own_stride, y_own, place, y_own_stride, own_width,
                DOT, OWN_CHUNK,
            )  # fmt: skip
        else:
            for edge in range(edges):
                high = tl.zeros([ROWS], tl.float32) + tl.load(above + edge)
                counted = _within(
                    bounds, tl.load(below + edge) - slack, high, tl.load(limits + edge),
                    x_own, rows, x_own_stride, y_own, place, y_own_stride, own_width, DOT, OWN_CHUNK,
                )  # fmt: skip
                total += tl.where(tl.arange(0, EDGES) == edge, tl.sum(counted, 0), 0)

    if EDGES == 0:
        tl.store(out + split.to(INDEX) * n + rows, total, mask=rows_valid)
    else:
        program = tl.program_id(0).to(INDEX)
        tl.store(out + program * EDGES + tl.arange(0, EDGES), total)


@triton.jit
def _within(
    bounds, low, high, limit, x, rows, x_stride, y, place, y_stride, width,
    DOT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Return how many pairs of each row of a tile lie within its limit, [R] int32.

    Bounds up to `low`, [R], are of pairs within the limit for certain; those above `high`, [R], of pairs beyond it.
    """
    near = bounds <= high[:, None]
    undecided = near & (bounds > low[:, None])
    total = tl.sum(near.to(tl.int32), 1)
    left = tl.sum(undecided.to(tl.int32), 1)
    while tl.max(left, 0) > 0:
        column = tl.argmax(undecided.to(tl.int32), 1)
        has = left > 0
        distance = _measured(x, rows, x_stride, y, place + column, y_stride, has, width, DOT, CHUNK)
        total -= (has & (distance > limit)).to(tl.int32)
        undecided = undecided & (tl.arange(0, bounds.shape[1])[None, :] != column[:, None])
        left -= has.to(tl.int32)
    return total


@triton.jit
def _measured(x, rows, x_stride, y, columns, y_stride, valid, width, DOT: tl.constexpr, CHUNK: tl.constexpr):
    """Return the distances of pairs of a row of x and a row of y, [R] float64."""
    total = tl.zeros([rows.shape[0]], MEASURED)
    for first in range(0, width, CHUNK):
        a = load_rows(x, rows, x_stride, valid, first, width, CHUNK).to(MEASURED)
        b = load_rows(y, columns, y_stride, valid, first, width, CHUNK).to(MEASURED)
        if DOT:
            total -= tl.sum(a * b, 1)
        else:
            total += tl.sum((a - b) * (a - b), 1)
    return total
