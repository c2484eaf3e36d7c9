"""Triton functions of what every kernel of sums begins with: the rows of a program, and a tile of theirs and of y."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.tile import At, numbers_of, products_of, rows_of
from lamina_kernels.gram.walk import tile_at, walk_of


@triton.jit
def block_of_rows(
    item, bases, parameters, n, m, splits,
    CODE: tl.constexpr, BASES: tl.constexpr, SAME: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
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
    left = rows_of(bases, rows, valid, BASES)
    return block, split, part, rows, valid, numbers, left, walk_of(block, split, splits, m, SAME, ROWS, COLUMNS)


@triton.jit
def tile_of(
    bases, left, walk, turn, rows, rows_valid, m,
    EDGE: tl.constexpr, SAME: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Return where a tile lies, where rows meet themselves in it (None where they cannot), and its products."""
    first = tile_at(walk, turn, EDGE) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    if EDGE:
        at = At(rows, rows_valid, columns, columns < m, first)
    else:
        at = At(rows, rows_valid, columns, tl.full([COLUMNS], True, tl.int1), first)
    if SAME and EDGE:
        itself = rows[:, None] == columns[None, :]
        return at, itself, products_of(bases, left, at, itself, BASES, PRECISION)
    else:
        return at, None, products_of(bases, left, at, None, BASES, PRECISION)
