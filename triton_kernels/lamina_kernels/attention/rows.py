"""Triton functions of rows: which sequence a program has, where its rows start, and what belongs to each of them."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.tiles.load import INDEX, load_rows


class Sequence(NamedTuple):
    """A sequence of queries and keys, of a batch or packed.

    Attributes:
        part: Its place among the sequences of a tensor: packed ones are parts of one.
        first_query: The row of its first query.
        queries: How many it has.
        first_key: The row of its first key.
        keys: How many it has.
        shift: The key at which its first query stands.
    """

    part: tl.tensor
    first_query: tl.tensor
    queries: tl.tensor
    first_key: tl.tensor
    keys: tl.tensor
    shift: tl.tensor | int


@triton.jit
def sequence(number, cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT: tl.constexpr):
    """Return the sequence of this number."""
    first_query, first_key, part = queries * 0, keys * 0, number
    if cu_seqlens_q is not None:
        part = number * 0
        first_query = tl.load(cu_seqlens_q + number)
        queries = tl.load(cu_seqlens_q + number + 1) - first_query
    if cu_seqlens_k is not None:
        first_key = tl.load(cu_seqlens_k + number)
        keys = tl.load(cu_seqlens_k + number + 1) - first_key
    shift = keys - queries if BOTTOM_RIGHT else 0
    return Sequence(part, first_query, queries, first_key, keys, shift)


@triton.jit
def block_of_queries(
    number, pair, heads, cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT: tl.constexpr, ROWS: tl.constexpr
):
    """Return the queries that a program has: a block of those of one sequence and head.

    Args:
        number: Which block.
        pair: Which sequence and head, of which heads count fastest.
        heads: Query heads.
        cu_seqlens_q: See `Problem`.
        cu_seqlens_k: See `Problem`.
        queries: Nq.
        keys: Nk.
        BOTTOM_RIGHT: Where queries stand; see `Problem`.
        ROWS: Queries of a block.

    Returns:
        The `Sequence`; the head; the number of the first query in the sequence, which has none if it is not below
        `queries`; the numbers of all, [ROWS]; whether they exist; the keys at which they stand, [ROWS, 1]; and their
        places in [B, H, Nq].
    """
    head = pair % heads
    at = sequence(pair // heads, cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT)
    rows = number * ROWS + tl.arange(0, ROWS)
    place = first_place(at.part, head, heads, at.first_query, queries) + rows
    return at, head, number * ROWS, rows, rows < at.queries, (rows + at.shift)[:, None], place


@triton.jit
def block_of_keys(
    number, pair, heads, cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return the keys that a program has, whose heads may be fewer than those of queries; see `block_of_queries`.

    Returns:
        The `Sequence`; the head; the number of the first key in the sequence; the numbers of all, [COLUMNS]; whether
        they exist.
    """
    head = pair % heads
    at = sequence(pair // heads, cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT)
    columns = number * COLUMNS + tl.arange(0, COLUMNS)
    return at, head, number * COLUMNS, columns, columns < at.keys


@triton.jit
def first_place(part, head, heads, row, length):
    """Return where a row of a head stands in [B, heads, length]."""
    return (part.to(INDEX) * heads + head) * length + row


@triton.jit
def row_of(rows, part, head, row, part_step, head_step, row_step, DESCRIPTOR: tl.constexpr):
    """Return the address of a row of [B, H, N, …]; a descriptor of all rows, and None, are returned as they are."""
    if DESCRIPTOR or rows is None:
        return rows
    else:
        return rows + part.to(INDEX) * part_step + head.to(INDEX) * head_step + row.to(INDEX) * row_step


@triton.jit
def slope_of(slopes, head):
    """Return the slope of a head, or None."""
    if slopes is None:
        return None
    else:
        return tl.load(slopes + head)


@triton.jit
def table_of(table, head, radius):
    """Return the first element of the table of a head, or None."""
    if table is None:
        return None
    else:
        return table + head.to(INDEX) * (2 * radius + 1)


@triton.jit
def load_tile(
    source, first, valid, part, head, stride, width,
    DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Load the [ROWS, WIDTH] tile from row `first` on, by a descriptor of the whole tensor or by addresses."""
    if DESCRIPTORS:
        return source.load([part, head, first, 0]).reshape(ROWS, WIDTH)
    else:
        return load_rows(source, first + tl.arange(0, ROWS), stride, valid, 0, width, WIDTH)


@triton.jit
def vector(pointer, place, valid, other, AXIS: tl.constexpr):
    """Load a number a row, to stand along a tile with one column (AXIS 1) or one row (AXIS 0).

    Of rows that do not exist it is `other`; None says that all do.
    """
    if valid is None:
        return tl.expand_dims(tl.load(pointer + place), AXIS)
    else:
        return tl.expand_dims(tl.load(pointer + place, mask=valid, other=other), AXIS)


@triton.jit
def vector_or(otherwise, pointer, place, valid, AXIS: tl.constexpr):
    """Return the factor or term of each row, 0 of those that do not exist, see `vector`; `otherwise` without any."""
    if pointer is None:
        return otherwise
    else:
        return vector(pointer, place, valid, 0.0, AXIS)
