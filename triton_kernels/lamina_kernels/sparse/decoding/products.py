"""The Triton kernel of the gradients of values: products of rows with the atoms that their entries name."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.sparse.decoding.forward import NO_ATOM
from lamina_kernels.tiles.load import INDEX, load_rows


@triton.jit(do_not_specialize=["atoms"])
def products_kernel(
    g,  # [lists, width], rows contiguous inside
    ids,  # [nnz]
    starts, ends,  # [lists] int64
    table,  # [atoms, width], rows contiguous inside
    out,  # [nnz] float32
    atoms, width, g_stride, table_stride,
    COLUMNS: tl.constexpr, TOGETHER: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Multiply the row of one list with the atom of each of its entries, TOGETHER of them at a time.

    WHOLE says that COLUMNS are all: the row is loaded once then.
    """
    item = tl.program_id(0)
    row = g + item.to(INDEX) * g_stride
    first = tl.load(starts + item)
    last = tl.load(ends + item)
    if WHOLE:
        columns = tl.arange(0, COLUMNS)
        whole = tl.load(row + columns, mask=columns < width, other=0.0).to(tl.float32)
    for place in range(first, last, TOGETHER):
        entries = place + tl.arange(0, TOGETHER)
        there = entries < last
        found = tl.load(ids + entries, mask=there, other=0).to(INDEX)
        known = (found >= 0) & (found < atoms)
        if WHOLE:
            rows = load_rows(table, found, table_stride, there & known, 0, width, COLUMNS).to(tl.float32)
            total = tl.sum(rows * whole[None, :], 1)
        else:
            total = tl.zeros([TOGETHER], tl.float32)
            for start in range(0, width, COLUMNS):
                columns = start + tl.arange(0, COLUMNS)
                part = tl.load(row + columns, mask=columns < width, other=0.0).to(tl.float32)
                rows = load_rows(table, found, table_stride, there & known, start, width, COLUMNS).to(tl.float32)
                total += tl.sum(rows * part[None, :], 1)
        tl.store(out + entries, total + tl.where(known, 0.0, NO_ATOM), mask=there)
