"""Products of tiles on tensor cores."""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

from lamina_kernels.tiles.load import INDEX, load_rows

# In Triton's interpreter, which must be asked for before this module is imported.
INTERPRETED = tl.constexpr(knobs.runtime.interpret)


@triton.jit
def dot(a, b, accumulator, PRECISION: tl.constexpr):
    """Return accumulator + a b in float32.

    Half precision is multiplied exactly. float32 is multiplied as PRECISION says: "bf16x6" (six products of its three
    bfloat16 parts, as accurate as float32), "tf32" or "ieee". The interpreter rejects the first and gets bfloat16
    wrong, so that it multiplies everything as float32.

    Args:
        a: [R, d].
        b: [d, C].
        accumulator: [R, C] float32.
        PRECISION: How float32 is multiplied.
    """
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), accumulator, input_precision="ieee")
    elif a.dtype == tl.float32:
        return tl.dot(a, b, accumulator, input_precision=PRECISION)
    else:
        return tl.dot(a, b, accumulator)


@triton.jit
def weights_as(p, v):
    """Return weights in the dtype in which they are multiplied with `v`.

    The interpreter cuts digits off where it makes bfloat16: there they stay in single precision.
    """
    if INTERPRETED and v.dtype == tl.bfloat16:
        return p
    else:
        return p.to(v.dtype)


@triton.jit
def rounded_for(a, PRECISION: tl.constexpr):
    """Return float32 numbers rounded to what PRECISION multiplies, if that is "tf32": a tensor core cuts digits off.

    Like `rounding.round_to_tf32`, for numbers that a kernel computes; those that are not finite stay.
    """
    if a.dtype == tl.float32 and PRECISION == "tf32":
        bits = (a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000
        return tl.where(tl.abs(a) < float("inf"), bits.to(tl.float32, bitcast=True), a)
    else:
        return a


@triton.jit
def dot_rows(a, b, accumulator, PRECISION: tl.constexpr):
    """Return accumulator + a bᵀ, where b is [C, d]; see `dot`."""
    return dot(a, tl.trans(b), accumulator, PRECISION)


@triton.jit
def dot_of_rows(
    x, x_rows, x_stride, x_valid, y, y_rows, y_stride, y_valid, width, PRECISION: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return the [R, C] dot products of rows of any width, COLUMNS columns at a time; see `load_rows`."""
    products = tl.zeros([x_rows.shape[0], y_rows.shape[0]], tl.float32)
    for first in range(0, width, COLUMNS):
        a = load_rows(x, x_rows, x_stride, x_valid, first, width, COLUMNS)
        b = load_rows(y, y_rows, y_stride, y_valid, first, width, COLUMNS)
        products = dot_rows(a, b, products, PRECISION)
    return products


@triton.jit
def dot_of_chunks(
    x, x_rows, x_stride, x_valid, y, first_of_y, y_stride, y_valid, width,
    PRECISION: tl.constexpr, COLUMNS: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Return the same of rows whose width is a multiple of TOGETHER COLUMNS, and of rows of y that stand together.

    Nothing is masked but rows of y: rows of x beyond the edge are taken for the first, as their products are nobody's.
    The TOGETHER chunks that a turn of the loop multiplies share the addresses of their rows; 0 is for rows of COLUMNS,
    which take no loop. Rows may be those of `rounding.parts_of`, with the width of a part.
    """
    products = tl.zeros([x_rows.shape[0], y_valid.shape[0]], tl.float32)
    x_row = (tl.where(x_valid, x_rows, 0).to(INDEX) * x_stride)[:, None]
    # What is added to the address of the first is the same in every tile.
    y += tl.cast(first_of_y, INDEX) * y_stride
    y_row = (tl.arange(0, y_valid.shape[0]).to(INDEX) * y_stride)[:, None]
    if TOGETHER == 0:
        columns = tl.arange(0, COLUMNS).to(INDEX)[None, :]
        products = _with_chunk(x + (x_row + columns), y + (y_row + columns), y_valid, width, products, PRECISION)
    else:
        # At least once: what jumps past the loop would set all products to 0 a second time.
        for first in range(0, tl.maximum(width, 1), COLUMNS * TOGETHER):
            columns = (first + tl.arange(0, COLUMNS)).to(INDEX)[None, :]
            for part in tl.static_range(TOGETHER):
                a, b = x + (x_row + columns) + part * COLUMNS, y + (y_row + columns) + part * COLUMNS
                products = _with_chunk(a, b, y_valid, width, products, PRECISION)
    return products


@triton.jit
def dot_of_tiles(
    x, first_of_x, y, first_of_y, width,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Return the same of rows of any width that descriptors load, CHUNK columns at a time: what lies outside is 0."""
    products = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, tl.maximum(width, 1), CHUNK):
        products = dot_rows(x.load([first_of_x, first]), y.load([first_of_y, first]), products, PRECISION)
    return products


@triton.constexpr_function
def taken_apart(dtype, precision):
    """Return whether rows are parts of float32, side by side, by their type and how they are multiplied."""
    return dtype.primitive_bitwidth == 16 and precision in ("bf16x3", "bf16x6", "fp16x3")


@triton.jit
def _with_chunk(x, y, y_valid, width, products, PRECISION: tl.constexpr):
    """Return products + those of a chunk of rows, at [R, COLUMNS] and [C, COLUMNS] addresses.

    Of parts the small products are added first, and their sum to those of other chunks: as Triton does it with the
    parts that it makes of a tile.
    """
    a, b = tl.load(x), tl.load(y, mask=y_valid[:, None], other=0.0)
    if taken_apart(a.dtype, PRECISION):
        a_1, b_1 = tl.load(x + width), tl.load(y + width, mask=y_valid[:, None], other=0.0)
        found = tl.zeros(products.shape, tl.float32)
        if PRECISION == "bf16x6":
            a_2, b_2 = tl.load(x + 2 * width), tl.load(y + 2 * width, mask=y_valid[:, None], other=0.0)
            found = dot_rows(a_1, b_1, found, PRECISION)
            found = dot_rows(a_2, b, found, PRECISION)
            found = dot_rows(a, b_2, found, PRECISION)
        found = dot_rows(a_1, b, found, PRECISION)
        found = dot_rows(a, b_1, found, PRECISION)
        return products + dot_rows(a, b, found, PRECISION)
    else:
        return dot_rows(a, b, products, PRECISION)
