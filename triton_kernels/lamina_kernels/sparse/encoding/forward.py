"""The Triton kernel of an encoder: whole groups of pre-activations that may be among the largest of their row."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import dot_of_rows
from lamina_kernels.tiles.load import INDEX

# What stands for units beyond the last.
NO_UNIT = tl.constexpr(float("-inf"))


@triton.jit(do_not_specialize=["n", "m", "parts"])
def groups_above_kernel(
    x, weight,  # [n, width], [m, width]: rows contiguous inside
    bias,  # [m]; None for none
    boost, shift,  # [m] float32; None for none
    limits,  # [n] float32
    counts,  # [parts, n] int32, how many groups there were
    groups,  # [parts, n, ROOM] int32
    highest,  # [parts, n, ROOM] float32
    values,  # [parts, n, ROOM, GROUP] float32
    mass,  # [parts, n] float32, the sums of positive pre-activations; None if nobody asks
    positive,  # [m] int32, to which is added in how many rows a pre-activation is positive; None if nobody asks
    n, m, parts, width,
    x_stride, weight_stride,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr, ROOM: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Store the groups of GROUP units of which one reaches the limit of its row, in their order.

    Compared is a pre-activation times its boost, less its shift; stored is the pre-activation. A program takes ROWS
    rows and one part of the units. Of most tiles no group is stored; a row has room for ROOM of them, and counts also
    those that found none.
    """
    blocks = tl.cdiv(n, ROWS)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks

    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < n
    limit = tl.load(limits + rows.to(INDEX), mask=rows_valid, other=float("inf"))
    # Of this program's own lists 32 bits count: addresses of all would take the registers of a tile.
    first_list = part.to(INDEX) * n + block * ROWS
    own_groups = groups + first_list * ROOM
    own_highest = highest + first_list * ROOM
    own_values = values + first_list * ROOM * GROUP
    lists = tl.arange(0, ROWS)[:, None] * ROOM
    members = tl.arange(0, GROUP)[None, None, :]

    share = tl.cdiv(tl.cdiv(m, COLUMNS), parts) * COLUMNS
    first = part * share
    last = tl.minimum(first + share, m)
    count = tl.zeros([ROWS], tl.int32)
    total = tl.zeros([ROWS], tl.float32)
    for place in range(first, last, COLUMNS):
        units = place + tl.arange(0, COLUMNS)
        valid = units < last
        pre = dot_of_rows(x, rows, x_stride, rows_valid, weight, units, weight_stride, valid, width, PRECISION, CHUNK)
        if bias is not None:
            pre += tl.load(bias + units.to(INDEX), mask=valid, other=0.0).to(tl.float32)[None, :]
        pre = tl.where(valid[None, :], pre, NO_UNIT)
        if mass is not None:
            total += tl.sum(tl.maximum(pre, 0.0), 1)
        if positive is not None:
            # Whole numbers: the order in which programs add does not matter.
            above = tl.sum(((pre > 0) & rows_valid[:, None]).to(tl.int32), 0)
            tl.atomic_add(positive + units.to(INDEX), above, mask=valid)
        scores = pre
        if boost is not None:
            scores *= tl.load(boost + units.to(INDEX), mask=valid, other=1.0)[None, :]
        if shift is not None:
            scores -= tl.load(shift + units.to(INDEX), mask=valid, other=0.0)[None, :]
        best = tl.max(tl.reshape(scores, [ROWS, COLUMNS // GROUP, GROUP]), 2)
        enters = best >= limit[:, None]
        arrivals = tl.sum(enters.to(tl.int32), 1)
        # As one row of numbers: the compiler for sm_100 fails at a reduction of what was reduced.
        if tl.max(tl.reshape(enters.to(tl.int32), [ROWS * (COLUMNS // GROUP)]), 0) > 0:
            slot = count[:, None] + tl.cumsum(enters.to(tl.int32), 1) - 1
            fits = enters & (slot < ROOM) & rows_valid[:, None]
            target = lists + slot
            group = place // GROUP + tl.arange(0, COLUMNS // GROUP)
            tl.store(own_groups + target, tl.zeros_like(slot) + group[None, :], mask=fits)
            tl.store(own_highest + target, best, mask=fits)
            # What does not fit goes nowhere; of two dimensions, as the products are.
            target = tl.where(fits, target, -1)
            shape: tl.constexpr = [ROWS, COLUMNS // GROUP, GROUP]
            into = tl.reshape(tl.broadcast_to(target[:, :, None] * GROUP, shape) + members, [ROWS, COLUMNS])
            tl.store(own_values + into, pre, mask=into >= 0)
            count += arrivals
    tl.store(counts + first_list + tl.arange(0, ROWS), count, mask=rows_valid)
    if mass is not None:
        tl.store(mass + first_list + tl.arange(0, ROWS), total, mask=rows_valid)
