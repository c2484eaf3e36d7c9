"""The Triton kernel of the groups of columns that hold the nearest rows."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.bounds_tile import FAR, Side, block_of, bounds_of
from lamina_kernels.tiles.load import INDEX


@triton.jit(do_not_specialize=["n", "m", "splits"])
def nearest_groups_kernel(
    x, y,  # [n, width], [m, width]: rows contiguous inside
    x_bias, y_bias,  # [n], [m] float32, see `bounds_tile`
    x_groups, y_groups,  # [n], [m] int64: pairs of one group are left out; None for no groups
    values,  # [splits, n, TOP] float32
    places,  # [splits, n, TOP] int32, groups of columns; -1 for none
    n, m, splits, width,
    x_stride, y_stride,
    scale,
    APART: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, TOP: tl.constexpr,
    CHUNK: tl.constexpr, WHOLE: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Find the TOP groups of GROUP columns with the smallest bounds, for ROWS rows among one part of the columns.

    A list of TOP groups a row, in no order, takes the smallest group of a tile in place of its largest as long as some
    row has one that is smaller: of the first tiles often, of most others never. APART leaves out pairs of a row with
    itself.
    """
    blocks = tl.cdiv(n, ROWS)
    block = tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks

    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < n
    left, right = Side(x, x_bias, x_groups, x_stride), Side(y, y_bias, y_groups, y_stride)
    own = block_of(left, rows, rows_valid, width, PRECISION, CHUNK, WHOLE)

    share = tl.cdiv(tl.cdiv(m, COLUMNS), splits) * COLUMNS
    first = split * share
    last = tl.minimum(first + share, m)
    slots = tl.arange(0, TOP)[None, :]
    best = tl.full([ROWS, TOP], FAR, tl.float32)
    found = tl.full([ROWS, TOP], -1, tl.int32)
    groups = tl.arange(0, COLUMNS // GROUP)[None, :]
    for place in range(first, last, COLUMNS):
        columns = place + tl.arange(0, COLUMNS)
        valid = columns < last
        bounds = bounds_of(
            left, own, right, place, columns, valid, width, scale, APART, PRECISION, CHUNK, WHOLE, TOGETHER
        )
        lowest = tl.min(tl.reshape(bounds, [ROWS, COLUMNS // GROUP, GROUP]), 2)
        least = tl.min(lowest, 1)
        enters = least < tl.max(best, 1)
        while tl.max(enters.to(tl.int32), 0) > 0:
            group = tl.argmin(lowest, 1)
            worst = tl.argmax(best, 1)
            into = enters[:, None] & (slots == worst[:, None])
            best = tl.where(into, least[:, None], best)
            found = tl.where(into, (place // GROUP + group)[:, None], found)
            lowest = tl.where(groups == group[:, None], FAR, lowest)
            least = tl.min(lowest, 1)
            enters = least < tl.max(best, 1)

    target = (split.to(INDEX) * n + rows)[:, None] * TOP + slots
    stored = rows_valid[:, None] & (slots < TOP)
    tl.store(values + target, best, mask=stored)
    tl.store(places + target, found, mask=stored)
