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
def row_of(rows, part, head, row, part_step, head_step, row_step, DESCRIPTOR: tl.constexpr):
    """Return the address of a row of [B, H, N, …]; a descriptor of all rows, and None, are returned as they are."""
    if DESCRIPTOR or rows is None:
        return rows
    else:
        return rows + part.to(INDEX) * part_step + head.to(INDEX) * head_step + row.to(INDEX) * row_step


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
    """Load a number a row, to stand along a tile with one column (AXIS 1) or one row (AXIS 0)."""
    return tl.expand_dims(tl.load(pointer + place, mask=valid, other=other), AXIS)


@triton.jit
def vector_or(otherwise, pointer, place, valid, AXIS: tl.constexpr):
    """Return the factor or term of each row, 0 of those that do not exist, see `vector`; `otherwise` without any."""
    if pointer is None:
        return otherwise
    else:
        return vector(pointer, place, valid, 0.0, AXIS)
