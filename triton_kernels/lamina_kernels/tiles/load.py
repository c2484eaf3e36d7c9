"""Loading a tile of rows."""

from __future__ import annotations

import triton
import triton.language as tl

# Addresses count elements in 64 bits: 50,000 rows of 50,000 numbers overflow 32.
INDEX = tl.constexpr(tl.int64)


@triton.jit
def load_rows(pointer, rows, stride, valid, first, width, COLUMNS: tl.constexpr):
    """Load a [R, COLUMNS] tile of a matrix whose rows are contiguous inside; what lies outside is zero.

    Args:
        pointer: The first element of the matrix.
        rows: [R], the rows to load.
        stride: Elements from one row to the next.
        valid: [R], whether a row exists.
        first: The first column to load.
        width: Columns of the matrix.
        COLUMNS: Columns of the tile.
    """
    columns = first + tl.arange(0, COLUMNS)
    address = rows.to(INDEX)[:, None] * stride + columns[None, :].to(INDEX)
    return tl.load(pointer + address, mask=valid[:, None] & (columns < width)[None, :], other=0.0)
