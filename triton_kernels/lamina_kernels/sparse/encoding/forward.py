"""The Triton kernel of an encoder: whole groups of pre-activations that may be among the largest of their row."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import dot_of_rows, dot_of_tiles
from lamina_kernels.tiles.load import INDEX


@triton.jit
def products_of(
    x, row, n, x_stride, weight, unit, m, weight_stride, width,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Return the products of ROWS rows with COLUMNS units, from `row` and `unit` on; 0 for those that do not exist."""
    if DESCRIPTORS:
        return dot_of_tiles(x, row, weight, unit, width, PRECISION, ROWS, COLUMNS, CHUNK)
    else:
        rows, units = row + tl.arange(0, ROWS), unit + tl.arange(0, COLUMNS)
        return dot_of_rows(
            x, rows, x_stride, rows < n, weight, units, weight_stride, units < m, width, PRECISION, CHUNK
        )


@triton.jit(do_not_specialize=["n", "m", "parts"])
def groups_above_kernel(
    x, weight,  # [n, width], [m, width]: rows contiguous inside, or descriptors of such
    bias, boost, shift,  # [units of all tiles] float32; None for none. The bias of a unit that does not exist is -inf
    limits,  # [n] float32
    counts,  # [parts, n] int32, how many groups there were
    groups,  # [parts, n, ROOM] int32
    highest,  # [parts, n, ROOM] float32
    values,  # [parts, n, ROOM, GROUP] float32
    mass,  # [parts, n] float32, the sums of positive pre-activations; None if nobody asks
    positive,  # [m] int32, to which is added in how many rows a pre-activation is positive; None if nobody asks
    n, m, parts, width,
    x_stride, weight_stride,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    GROUP: tl.constexpr, ROOM: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Store the groups of GROUP units of which one reaches the limit of its row, in their order.

    Compared is a pre-activation times its boost, less its shift; stored is the pre-activation. A program takes ROWS
    rows and one part of the units. A row has room for ROOM groups, and counts also those that found none.
    """
    blocks = tl.cdiv(n, ROWS)
    row = tl.program_id(0) % blocks * ROWS
    part = tl.program_id(0) // blocks

    rows_valid = row + tl.arange(0, ROWS) < n
    limit = tl.load(limits + row + tl.arange(0, ROWS), mask=rows_valid, other=float("inf"))
    # Of this program's own lists 32 bits count: addresses of all would take the registers of a tile.
    first_list = part.to(INDEX) * n + row
    own_groups = groups + first_list * ROOM
    own_highest = highest + first_list * ROOM
    own_values = values + first_list * ROOM * GROUP
    lists = tl.arange(0, ROWS)[:, None] * ROOM
    members = tl.arange(0, GROUP)[None, None, :]
    in_groups: tl.constexpr = [ROWS, COLUMNS // GROUP, GROUP]

    share = tl.cdiv(tl.cdiv(m, COLUMNS), parts) * COLUMNS
    first = part * share
    last = tl.minimum(first + share, m)
    count = tl.zeros([ROWS], tl.int32)
    total = tl.zeros([ROWS], tl.float32)
    for unit in range(first, last, COLUMNS):
        pre = products_of(
            x, row, n, x_stride, weight, unit, m, weight_stride, width,
            PRECISION, DESCRIPTORS, ROWS, COLUMNS, CHUNK,
        )  # fmt: skip
        units = unit + tl.arange(0, COLUMNS)
        if bias is not None:
            pre += tl.load(bias + units)[None, :]
        if mass is not None:
            total += tl.sum(tl.maximum(pre, 0.0), 1)
        if positive is not None:
            # Whole numbers: the order in which programs add does not matter.
            above = tl.sum(((pre > 0) & rows_valid[:, None]).to(tl.int32), 0)
            tl.atomic_add(positive + units, above, mask=units < m)
        scores = pre
        if boost is not None:
            scores *= tl.load(boost + units)[None, :]
        if shift is not None:
            scores -= tl.load(shift + units)[None, :]
        best = tl.max(tl.reshape(scores, in_groups), 2)
        # Nothing is skipped where no group enters: of k of so many units, one of a tile nearly always does.
        enters = (best >= limit[:, None]).to(tl.int32)
        slot = count[:, None] + tl.cumsum(enters, 1) - 1
        count += tl.sum(enters, 1)
        fits = (enters > 0) & (slot < ROOM) & rows_valid[:, None]
        group = unit // GROUP + tl.arange(0, COLUMNS // GROUP)
        target = lists + slot
        tl.store(own_groups + target, tl.zeros_like(slot) + group[None, :], mask=fits)
        tl.store(own_highest + target, best, mask=fits)
        # Of three dimensions, whose last is known to stand together: sixteen bytes are stored at a time.
        into = target[:, :, None] * GROUP + members
        tl.store(own_values + into, tl.reshape(pre, in_groups), mask=fits[:, :, None])
    tl.store(counts + first_list + tl.arange(0, ROWS), count, mask=rows_valid)
    if mass is not None:
        tl.store(mass + first_list + tl.arange(0, ROWS), total, mask=rows_valid)
