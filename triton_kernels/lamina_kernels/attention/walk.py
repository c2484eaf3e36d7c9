"""Triton functions of which tiles a program visits, and what is seen of them."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.attention.windows import key_range, query_range, seen, seen_of_block
from lamina_kernels.tiles.load import INDEX


class Sight(NamedTuple):
    """What queries see of keys: those of a window, and of blocks those that a mask lists.

    Attributes:
        first: The first query (key) of the program.
        keys: Keys of the sequence.
        left: See `Problem`.
        right: See `Problem`.
        listed: How many blocks a mask lists for a program.
        blocks: The first of them; or None.
        partial: That of which bits tell what is seen of them.
        bits: See `BlockMask`.
    """

    first: tl.tensor
    keys: tl.tensor
    left: tl.tensor
    right: tl.tensor
    listed: tl.tensor | int
    blocks: tl.tensor | None
    partial: tl.tensor | None
    bits: tl.tensor | None


class Walk(NamedTuple):
    """Which tiles a program visits, as places that are multiples of a tile.

    A place is a key (a query, where queries are visited); under a block mask, one of those of the listed blocks, first
    of those that are seen whole. Every pair is seen of the full tiles: those from `full_low` to `full_high` but for
    those from `cross_low` to `cross_high`, which have keys on both sides of their queries. They come first, the others
    behind them, from `low` to `whole_high` and from `partial_low` to `high`: what a mask lists between these lies
    outside of the window.
    """

    low: tl.tensor
    full_low: tl.tensor
    cross_low: tl.tensor
    cross_high: tl.tensor
    full_high: tl.tensor
    whole_high: tl.tensor
    partial_low: tl.tensor
    high: tl.tensor


@triton.jit
def turns(walk, EDGE: tl.constexpr, STEP: tl.constexpr):
    """Return how many tiles of STEP are full, or are not."""
    if EDGE:
        places = walk.full_low - walk.low + walk.cross_high - walk.cross_low
        places += walk.whole_high - walk.full_high + walk.high - walk.partial_low
    else:
        places = walk.cross_low - walk.full_low + walk.full_high - walk.cross_high
    return places // STEP


@triton.jit
def place_at(walk, turn, EDGE: tl.constexpr, STEP: tl.constexpr):
    """Return the place of a tile, full or not."""
    if EDGE:
        place = walk.low + turn * STEP
        place += tl.where(place < walk.full_low, 0, walk.cross_low - walk.full_low)
        place += tl.where(place < walk.cross_high, 0, walk.full_high - walk.cross_high)
        place += tl.where(place < walk.whole_high, 0, walk.partial_low - walk.whole_high)
    else:
        place = walk.full_low + turn * STEP
        place += tl.where(place < walk.cross_low, 0, walk.cross_high - walk.cross_low)
    return place


@triton.jit
def part_of(walk, part, parts, STEP: tl.constexpr):
    """Return one of the parts that a walk is cut into, of as many places each."""
    share = tl.cdiv((walk.high - walk.low) // STEP, parts) * STEP
    low = tl.minimum(walk.low + part * share, walk.high)
    high = tl.minimum(low + share, walk.high)
    return Walk(
        low,
        between(walk.full_low, low, high),
        between(walk.cross_low, low, high),
        between(walk.cross_high, low, high),
        between(walk.full_high, low, high),
        between(walk.whole_high, low, high),
        between(walk.partial_low, low, high),
        high,
    )


@triton.jit
def between(place, low, high):
    """Return the place, or that of the ends which is next to it."""
    return tl.minimum(tl.maximum(place, low), high)


@triton.jit
def first_of(sight, place, BLOCK: tl.constexpr):
    """Return the first key (query) of the tile at a place."""
    if BLOCK:
        return tl.load(sight.blocks + place // BLOCK) * BLOCK + place % BLOCK
    else:
        return place


@triton.jit
def place_of(sight, start, BLOCK: tl.constexpr):
    """Return the place of the tile that starts at a key."""
    if BLOCK:
        entry = tl.zeros([32], tl.int32)
        for some in range(0, sight.listed, 32):
            entries = some + tl.arange(0, 32)
            block = tl.load(sight.blocks + entries, mask=entries < sight.listed, other=-1)
            entry += tl.where(block == start // BLOCK, entries, 0)
        return tl.sum(entry, 0) * BLOCK + start % BLOCK
    else:
        return start


@triton.jit
def visible(
    sight, place, rows, positions, columns, LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Return which pairs are seen of the tile at a place: of queries `rows`, which stand at `positions`, and keys.

    Queries stand along the first axis where keys are visited, else along the second.
    """
    inside = seen(positions, columns, sight.keys, sight.left, sight.right, LEFT, RIGHT)
    if BLOCK:
        partial = tl.load(sight.partial + place // BLOCK)
        if rows.shape[1] == 1:
            inside &= seen_of_block(sight.bits, partial, rows, place % BLOCK, BLOCK, columns.shape[1])
        else:
            inside &= seen_of_block(sight.bits, partial, rows, sight.first % BLOCK, BLOCK, columns.shape[0])
    return inside


@triton.jit
def keys_seen(
    first, at, head, left, right, starts, blocks, partial, bits, part_step, head_step,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BOTH: tl.constexpr,
):  # fmt: skip
    """Return what ROWS queries see, and the walk over its tiles of COLUMNS keys.

    Args:
        first: The first of the queries.
        at: Their `Sequence`.
        head: Their head.
        left: See `Problem`.
        right: See `Problem`.
        starts: The lists of a block mask by query, this one and the next; see `operands.mask_arguments`.
        blocks: See `starts`.
        partial: See `starts`.
        bits: See `starts`.
        part_step: Elements of `starts` from one sequence to the next.
        head_step: From one head to the next.
        LEFT: Whether keys to the left end somewhere.
        RIGHT: Whether keys to the right end somewhere.
        BLOCK: The side of a block of the mask, 0 without one.
        ROWS: Queries.
        COLUMNS: Keys of a tile.
        BOTH: Whether tiles with keys on both sides of their queries are not full.
    """
    position = first + at.shift
    low, full_low, full_high, high = key_range(  # pyright: ignore[reportGeneralTypeIssues]
        position, tl.minimum(first + ROWS, at.queries) - 1 + at.shift, at.keys, left, right, LEFT, RIGHT, COLUMNS
    )
    cross_low, cross_high = full_high, full_high
    if BOTH:
        cross_low = between(position // COLUMNS * COLUMNS, full_low, full_high)
        cross_high = between(tl.cdiv(position + ROWS, COLUMNS) * COLUMNS, cross_low, full_high)
    walk = Walk(low, full_low, cross_low, cross_high, full_high, high, high, high)
    count = 0
    if BLOCK:
        line = starts + at.part.to(INDEX) * part_step + head.to(INDEX) * head_step + first // BLOCK * 2
        walk = listed(walk, line, blocks, BLOCK)
        blocks += tl.load(line)
        partial += tl.load(line)
        count = tl.load(line + 2) - tl.load(line)
    return Sight(first, at.keys, left, right, count, blocks, partial, bits), walk


@triton.jit
def queries_seeing(
    first, at, head, left, right, starts, blocks, partial, bits, part_step, head_step,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    EXIST: tl.constexpr,
):  # fmt: skip
    """Return who sees COLUMNS keys from `first` on, and the walk over its tiles of ROWS queries; see `keys_seen`.

    EXIST: whether all queries of full tiles do; else those that do not count as such that see everything.
    """
    low, full_low, full_high, high = query_range(  # pyright: ignore[reportGeneralTypeIssues]
        first, tl.minimum(first + COLUMNS, at.keys) - 1, at.shift, at.queries, left, right, LEFT, RIGHT, ROWS, EXIST
    )
    walk = Walk(low, full_low, full_high, full_high, full_high, high, high, high)
    count = 0
    if BLOCK:
        line = starts + at.part.to(INDEX) * part_step + head.to(INDEX) * head_step + first // BLOCK * 2
        walk = listed(walk, line, blocks, BLOCK)
        blocks += tl.load(line)
        partial += tl.load(line)
        count = tl.load(line + 2) - tl.load(line)
    return Sight(first, at.keys, left, right, count, blocks, partial, bits), walk


@triton.jit
def listed(walk, line, blocks, BLOCK: tl.constexpr):
    """Return the walk over the blocks that a mask lists, from that over all keys.

    Args:
        walk: The walk over all keys (queries) of a window.
        line: Where the first of the two lists starts, and behind it, where they end.
        blocks: See `BlockMask`.
        BLOCK: The side of a block.
    """
    first, middle, last = tl.load(line), tl.load(line + 1), tl.load(line + 2)
    none = tl.zeros([32], tl.int32)
    low, full_low, cross_low, cross_high, full_high, high = none, none, none, none, none, none
    for entry in range(first, middle, 32):
        start, size = block_at(entry, middle, blocks, BLOCK)
        low += between(walk.low - start, 0, size)
        full_low += between(walk.full_low - start, 0, size)
        cross_low += between(walk.cross_low - start, 0, size)
        cross_high += between(walk.cross_high - start, 0, size)
        full_high += between(walk.full_high - start, 0, size)
        high += between(walk.whole_high - start, 0, size)
    partial_low, partial_high = none, none
    for entry in range(middle, last, 32):
        start, size = block_at(entry, last, blocks, BLOCK)
        partial_low += between(walk.low - start, 0, size)
        partial_high += between(walk.high - start, 0, size)
    behind = (middle - first) * BLOCK
    return Walk(
        tl.sum(low, 0),
        tl.sum(full_low, 0),
        tl.sum(cross_low, 0),
        tl.sum(cross_high, 0),
        tl.sum(full_high, 0),
        tl.sum(high, 0),
        behind + tl.sum(partial_low, 0),
        behind + tl.sum(partial_high, 0),
    )


@triton.jit
def block_at(entry, last, blocks, BLOCK: tl.constexpr):
    """Return where the 32 blocks from an entry on start, and their sizes: 0 from the last entry on."""
    entries = entry + tl.arange(0, 32)
    start = tl.load(blocks + entries, mask=entries < last, other=0) * BLOCK
    return start, tl.where(entries < last, BLOCK, 0)
