"""The Triton kernel of decoding: sums of the atoms that lists of entries name, or of rows by unit."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.load import INDEX

# What an entry without an atom adds.
NO_ATOM = tl.constexpr(float("nan"))


@triton.jit(do_not_specialize=["atoms"])
def sums_kernel(
    values, ids,  # [nnz]
    order,  # [nnz] int64, where the value of an entry stands; None if it stands with its id
    starts, ends,  # [lists] int64
    table,  # [atoms, width], rows contiguous inside
    bias,  # [width]; None for none
    out,  # [lists, width]
    atoms, width, table_stride,
    COLUMNS: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Sum value times row of the table over the entries of one list, COLUMNS columns of it.

    TOGETHER entries are loaded before the first of them is added: a gathered row is waited for, not computed. They are
    added one after the other in float32, in the order in which they stand.
    """
    blocks = tl.cdiv(width, COLUMNS)
    item = tl.program_id(0) // blocks
    columns = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    first = tl.load(starts + item)
    last = tl.load(ends + item)
    total = tl.zeros([COLUMNS], tl.float32)
    if bias is not None:
        total += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    for place in range(first, last, TOGETHER):
        for one in tl.static_range(0, TOGETHER):  # pyright: ignore[reportGeneralTypeIssues]
            entry = place + one
            there = entry < last
            atom = tl.load(ids + entry, mask=there, other=0).to(INDEX)
            at = entry
            if order is not None:
                at = tl.load(order + entry, mask=there, other=0)
            value = tl.load(values + at, mask=there, other=0.0).to(tl.float32)
            known = (atom >= 0) & (atom < atoms)
            row = tl.load(table + atom * table_stride + columns, mask=inside & there & known, other=0.0)
            # A missing entry must not make NaN of an infinite atom: its row is zeros as well.
            total += value * row.to(tl.float32) + tl.where(known, 0.0, NO_ATOM)
    tl.store(out + item.to(INDEX) * width + columns, total.to(out.dtype.element_ty), mask=inside)
