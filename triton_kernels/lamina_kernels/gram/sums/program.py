"""Triton functions of what every kernel of sums begins with: the rows of a program, and a tile of theirs and of y."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.tile import at_of, itself_of, numbers_of, products_of, rows_of
from lamina_kernels.gram.walk import walk_of


@triton.jit
def block_of_rows(
    item, bases, parameters, n, m, splits,
    CODE: tl.constexpr, BASES: tl.constexpr, SAME: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    x_tiles=None,
):  # fmt: skip
    """Return the rows of an item of work, which is what a program has, or one of several.

    Items run over blocks of rows fastest, then over parts of y, then over what else there is.

    Returns:
        The number of the block, of the part of y, and of the rest; the rows, [ROWS], and whether they exist; `numbers`
        and `left`, see `tile`; the walk.
    """
    blocks = tl.cdiv(n, ROWS)
    block = item % blocks
    split = item // blocks % splits
    part = item // blocks // splits
    rows = block * ROWS + tl.arange(0, ROWS)
    valid = rows < n
    numbers = numbers_of(parameters, CODE)
    left = rows_of(bases, rows, valid, BASES, x_tiles, block * ROWS)
    return block, split, part, rows, valid, numbers, left, walk_of(block * ROWS, split, splits, m, SAME, ROWS, COLUMNS)


@triton.jit
def tile_of(
    bases, left, walk, turn, rows, rows_valid, m,
    EDGE: tl.constexpr, SAME: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr, COLUMNS: tl.constexpr,
    x_tiles=None, y_tiles=None,
):  # fmt: skip
    """Return where a tile lies, and its products."""
    at = at_of(walk, turn, rows, rows_valid, 0, m, EDGE, COLUMNS)
    return at, products_of(bases, left, at, itself_of(at, EDGE, SAME), BASES, PRECISION, x_tiles, y_tiles)
