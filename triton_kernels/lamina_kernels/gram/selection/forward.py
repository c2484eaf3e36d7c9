"""The Triton kernel of the groups of columns that hold the nearest rows."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.bounds_tile import FAR, Side, block_of, bounds_of
from lamina_kernels.tiles.load import INDEX


@triton.jit
def lowest_of_groups(bounds, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the smallest bound of each group of 8 columns of a tile, [ROWS, COLUMNS / 8].

    Of 32 columns a group has two neighbors of each 8, which one thread holds: the first group 0, 1, 8, 9, 16, 17, 24
    and 25, the next 2, 3, 10 and so on. Groups of neighbors would be shuffled between threads.
    """
    parts = tl.reshape(bounds, [ROWS, COLUMNS // 32, 4, 4, 2])
    return tl.reshape(tl.min(tl.min(parts, 4), 2), [ROWS, COLUMNS // 8])


@triton.jit(do_not_specialize=["n", "m", "splits"])
def nearest_groups_kernel(
    x, y,  # [n, width], [m, width]: rows contiguous inside; or descriptors of them
    x_bias, y_bias,  # [n], [whole tiles of m] float32, see `bounds_tile`
    x_groups, y_groups,  # [n], [m] int64: pairs of one group are left out; None for no groups
    values,  # [splits, n, TOP] float32
    places,  # [splits, n, TOP] int32, groups of columns; -1 for none
    n, m, splits, width,
    x_stride, y_stride,
    scale,
    APART: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, TOP: tl.constexpr,
    CHUNK: tl.constexpr, WHOLE: tl.constexpr, TOGETHER: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Find the TOP groups with the smallest bounds for ROWS rows among one part of the columns; see `lowest_of_groups`.

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
    own = block_of(left, block * ROWS, rows, rows_valid, width, PRECISION, CHUNK, WHOLE, DESCRIPTORS)

    share = tl.cdiv(tl.cdiv(m, COLUMNS), splits) * COLUMNS
    first = split * share
    last = tl.minimum(first + share, m)
    slots = tl.arange(0, TOP)[None, :]
    best = tl.full([ROWS, TOP], FAR, tl.float32)
    limit = tl.full([ROWS], FAR, tl.float32)
    found = tl.full([ROWS, TOP], -1, tl.int32)
    groups = tl.arange(0, COLUMNS // GROUP)[None, :]
    for place in range(first, last, COLUMNS):
        columns = place + tl.arange(0, COLUMNS)
        valid = columns < last
        bounds = bounds_of(
            left, own, right, place, columns, valid, width, scale,
            APART, PRECISION, CHUNK, WHOLE, TOGETHER, DESCRIPTORS,
        )  # fmt: skip
        lowest = lowest_of_groups(bounds, ROWS, COLUMNS)
        least = tl.min(lowest, 1)
        enters = least < limit
        while tl.max(enters.to(tl.int32), 0) > 0:
            group = tl.argmin(lowest, 1)
            worst = tl.argmax(best, 1)
            into = enters[:, None] & (slots == worst[:, None])
            best = tl.where(into, least[:, None], best)
            found = tl.where(into, (place // GROUP + group)[:, None], found)
            lowest = tl.where(groups == group[:, None], FAR, lowest)
            least = tl.min(lowest, 1)
            limit = tl.max(best, 1)
            enters = least < limit

    target = (split.to(INDEX) * n + rows)[:, None] * TOP + slots
    stored = rows_valid[:, None] & (slots < TOP)
    tl.store(values + target, best, mask=stored)
    tl.store(places + target, found, mask=stored)
