"""What the Triton kernels of many kernels share: where a tile lies, which of its pairs count, and a layer's values."""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.base import Base
from lamina_kernels.gram.tile import At, numbers_of, products_of, rows_of, values
from lamina_kernels.tiles.load import INDEX


class Kind(NamedTuple):
    """Representations that run the same code.

    Attributes:
        bases: The bases of all of them, side by side; y is x.
        spans: [members, bases, 2] int64: the first column of each, and how many; multiples of 16.
        parameters: [members, leaves, 2] float32.
        first: The number of the first member.
        members: How many there are.
    """

    bases: Any
    spans: Any
    parameters: Any
    first: Any
    members: Any


class Spot(NamedTuple):
    """Where a tile of two blocks of whole groups lies.

    Attributes:
        at: Its rows and columns.
        itself: [R, C], where a row meets itself.
        counts: [R, C], which pairs count.
        rows_in: [R, R], which rows are in which of the groups of their block; None without groups, like the rest.
        columns_in: [C, C], likewise.
        first_group: The first group of the rows.
        other_group: That of the columns.
    """

    at: Any
    itself: Any
    counts: Any
    rows_in: Any
    columns_in: Any
    first_group: Any
    other_group: Any


@triton.jit
def block(starts, number, n, ROWS: tl.constexpr):
    """Return the first row of a block, and the one behind its last: rows are counted in 32 bits, addresses are not."""
    if starts is None:
        first = tl.cast(number, tl.int32) * ROWS  # pyright: ignore[reportArgumentType]
        return first, tl.minimum(first + ROWS, n)
    else:
        return tl.load(starts + number), tl.load(starts + number + 1)


@triton.jit
def spot(starts, ids, a, b, n, room, DIAGONAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return where the tile of two blocks lies; members of groups come as what `room` holds."""
    first_row, last_row = block(starts, a, n, ROWS)  # pyright: ignore[reportGeneralTypeIssues]
    rows = first_row + tl.arange(0, ROWS)
    rows_valid = rows < last_row
    first_column, last_column = block(starts, b, n, COLUMNS)  # pyright: ignore[reportGeneralTypeIssues]
    columns = first_column + tl.arange(0, COLUMNS)
    columns_valid = columns < last_column
    at = At(rows, rows_valid, columns, columns_valid, first_column)
    itself = rows[:, None] == columns[None, :]
    counts = rows_valid[:, None] & columns_valid[None, :]
    if ids is not None:
        row_ids = tl.load(ids + rows, mask=rows_valid, other=-1)
        column_ids = tl.load(ids + columns, mask=columns_valid, other=-1)
        first_group, other_group = tl.load(ids + first_row), tl.load(ids + first_column)
        rows_in = _members(row_ids, first_group, room)
        columns_in = _members(column_ids, other_group, room)
        counts = counts & (row_ids[:, None] != column_ids[None, :])
        return Spot(at, itself, counts, rows_in, columns_in, first_group, other_group)
    else:
        if not DIAGONAL:
            counts = counts & (rows[:, None] != columns[None, :])
        return Spot(at, itself, counts, None, None, None, None)


@triton.jit
def bases_of(kind, member, n, BASES: tl.constexpr):
    """Return the bases of one member of a kind."""
    bases = ()
    for number in tl.static_range(tree.bases(BASES)):  # pyright: ignore[reportGeneralTypeIssues]
        base = kind.bases[number]
        span = kind.spans + (member * tree.bases(BASES) + number) * 2
        x = base.x + tl.multiple_of(tl.load(span), 16) * base.x_column
        norms = base.x_norms
        if norms is not None:
            norms = norms + member * n
        width = tl.multiple_of(tl.load(span + 1), 16)
        own = Base(
            x, x, norms, norms, base.x_row, base.x_column, base.x_row, base.x_column, width, base.function
        )  # fmt: skip
        bases = bases + (own,)  # noqa: RUF005
    return bases


@triton.jit
def numbers_of_member(kind, member, CODE: tl.constexpr):
    """Return the numbers of the leaves of one member of a kind."""
    return numbers_of(kind.parameters + member * 2 * tree.leaves(CODE), CODE)


@triton.jit
def centered(
    kind, member, centers, where, n, CODE: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    """Return a tile of the kernel values of one member of a kind, less what they are centered by; 0 for no pair."""
    at = where.at
    bases = bases_of(kind, member, n, BASES)
    numbers = numbers_of_member(kind, member, CODE)
    left = rows_of(bases, at.rows, at.rows_valid, BASES)
    products = products_of(bases, left, at, where.itself, BASES, PRECISION)
    k = values(products, bases, numbers, at, where.itself, CODE, BASES)
    layer = tl.cast(kind.first + member, INDEX)
    of_row = tl.load(centers + layer * n + at.rows, mask=at.rows_valid, other=0.0)
    of_column = tl.load(centers + layer * n + at.columns, mask=at.columns_valid, other=0.0)
    return tl.where(where.counts, k - (of_row[:, None] + of_column[None, :]), 0.0)


@triton.jit
def add(into, part, valid):
    """Add what a tile has to sums in memory that the program owns."""
    tl.store(into, tl.load(into, mask=valid, other=0.0) + part.to(into.dtype.element_ty), mask=valid)


@triton.jit
def _members(ids, first, room):
    """Return which rows are in which of the groups from the first on, [R, R], as what a room holds."""
    here = (ids - first)[:, None] == tl.arange(0, ids.shape[0])[None, :]
    return here.to(room.dtype.element_ty)
