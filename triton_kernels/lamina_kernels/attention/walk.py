"""Triton functions of which tiles a program visits, and what is seen of them."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.tiles.load import INDEX


class Sight(NamedTuple):
    """What queries see of keys: those of a window, and of blocks those that a mask lists.

    Attributes:
        first: The first query (key) of the program.
        keys: Keys of the sequence.
        left: See `Problem`.
        right: See `Problem`.
        blocks: The first entry of the list of blocks that a program visits; or None.
        partial: That of which bits tell what is seen of them.
        bits: See `BlockMask`.
    """

    first: tl.tensor
    keys: tl.tensor
    left: tl.tensor
    right: tl.tensor
    blocks: tl.tensor | None
    partial: tl.tensor | None
    bits: tl.tensor | None


class Walk(NamedTuple):
    """Which tiles a program visits, as places that are multiples of a tile.

    A place is a key (a query, where queries are visited); under a block mask, one of those of the listed blocks.
    Every pair is seen of the full tiles: those from `full_low` to `full_high` but for those from `cross_low` to
    `cross_high`, which have keys on both sides of their queries. They come first, the others behind them.
    """

    low: tl.tensor
    full_low: tl.tensor
    cross_low: tl.tensor
    cross_high: tl.tensor
    full_high: tl.tensor
    high: tl.tensor


@triton.jit
def turns(walk, EDGE: tl.constexpr, STEP: tl.constexpr):
    """Return how many tiles of STEP are full, or are not."""
    if EDGE:
        places = walk.full_low - walk.low + walk.cross_high - walk.cross_low + walk.high - walk.full_high
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
    else:
        place = walk.full_low + turn * STEP
        place += tl.where(place < walk.cross_low, 0, walk.cross_high - walk.cross_low)
    return place


@triton.jit
def part_of(walk, part, parts, STEP: tl.constexpr):
    """Return one of the parts that a walk is cut into, of as many tiles each."""
    share = tl.cdiv((walk.high - walk.low) // STEP, parts) * STEP
    low = tl.minimum(walk.low + part * share, walk.high)
    high = tl.minimum(low + share, walk.high)
    return Walk(
        low,
        between(walk.full_low, low, high),
        between(walk.cross_low, low, high),
        between(walk.cross_high, low, high),
        between(walk.full_high, low, high),
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
def seen(positions, columns, keys, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    """Return which pairs of a tile are seen; positions and columns as in `scores`."""
    inside = (columns < keys) & (positions == positions)
    if RIGHT:
        inside &= columns <= positions + right
    if LEFT:
        inside &= columns >= positions - left
    return inside


@triton.jit
def seen_of_block(bits, partial, rows, first, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Return which pairs of a tile inside a block are seen; all of them if `partial` is -1.

    A word of bits is loaded once for all of its keys.

    Args:
        bits: See `BlockMask`.
        partial: Which of the blocks that are seen in part.
        rows: [R, 1], or [1, R] of a tile keys by queries: the queries.
        first: The place in the block of the first of the keys.
        BLOCK: The side of the block.
        COLUMNS: Keys of the tile.
    """
    WORDS: tl.constexpr = (COLUMNS + 31) // 32
    KEYS: tl.constexpr = COLUMNS // WORDS
    words = bits + (partial.to(INDEX) * BLOCK + rows % BLOCK) * (BLOCK // 32) + first // 32
    each = first % 32 + tl.arange(0, KEYS)
    if rows.shape[1] == 1:
        words = tl.load(words + tl.arange(0, WORDS)[None, :], mask=partial >= 0, other=-1)
        inside = tl.reshape(words[:, :, None] >> each[None, None, :], [rows.shape[0], COLUMNS])
    else:
        words = tl.load(words + tl.arange(0, WORDS)[:, None], mask=partial >= 0, other=-1)
        inside = tl.reshape(words[:, None, :] >> each[None, :, None], [COLUMNS, rows.shape[1]])
    return inside & 1 != 0


@triton.jit
def key_range(
    position, last_position, keys, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr, COLUMNS: tl.constexpr
):
    """Return which tiles of keys a block of queries sees, as four keys that are multiples of COLUMNS.

    Tiles from the first to the last hold pairs that are seen; of those from the second to the third, all pairs.

    Args:
        position: Where the first query of the block stands.
        last_position: Where its last query stands.
        keys: Keys of the sequence.
        left: See `Problem`.
        right: See `Problem`.
        LEFT: Whether keys to the left end somewhere.
        RIGHT: Whether keys to the right end somewhere.
        COLUMNS: Keys of a tile.
    """
    low, high, full_low, full_high = keys * 0, keys, keys * 0, keys
    if LEFT:
        low = tl.minimum(tl.maximum(position - left, 0), keys)
        full_low = tl.minimum(tl.maximum(last_position - left, 0), keys)
    if RIGHT:
        high = tl.minimum(tl.maximum(last_position + right + 1, 0), keys)
        full_high = tl.minimum(tl.maximum(position + right + 1, 0), keys)
    low = low // COLUMNS * COLUMNS
    high = tl.maximum(tl.cdiv(high, COLUMNS) * COLUMNS, low)
    full_low = tl.minimum(tl.maximum(tl.cdiv(full_low, COLUMNS) * COLUMNS, low), high)
    full_high = tl.minimum(tl.maximum(full_high // COLUMNS * COLUMNS, full_low), high)
    return low, full_low, full_high, high


@triton.jit
def query_range(
    first_key, last_key, shift, queries, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr
):
    """Return which tiles of queries see a block of keys, as `key_range` does for keys.

    Queries that do not exist count as such that see everything: their weights are 0.
    """
    low, high, full_low, full_high = queries * 0, queries, queries * 0, tl.cdiv(queries, ROWS) * ROWS
    if RIGHT:
        low = tl.minimum(tl.maximum(first_key - shift - right, 0), queries)
        full_low = tl.minimum(tl.maximum(last_key - shift - right, 0), queries)
    if LEFT:
        high = tl.minimum(tl.maximum(last_key - shift + left + 1, 0), queries)
        full_high = tl.maximum(first_key - shift + left + 1, 0)
    low = low // ROWS * ROWS
    high = tl.maximum(tl.cdiv(high, ROWS) * ROWS, low)
    full_low = tl.minimum(tl.maximum(tl.cdiv(full_low, ROWS) * ROWS, low), high)
    full_high = tl.minimum(tl.maximum(full_high // ROWS * ROWS, full_low), high)
    return low, full_low, full_high, high


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
    walk = Walk(low, full_low, cross_low, cross_high, full_high, high)
    if BLOCK:
        walk, blocks, partial = listed(starts, blocks, partial, at.part, head, first, part_step, head_step, BLOCK)
    return Sight(first, at.keys, left, right, blocks, partial, bits), walk


@triton.jit
def queries_seeing(
    first, at, head, left, right, starts, blocks, partial, bits, part_step, head_step,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Return who sees COLUMNS keys from `first` on, and the walk over its tiles of ROWS queries; see `keys_seen`."""
    low, full_low, full_high, high = query_range(  # pyright: ignore[reportGeneralTypeIssues]
        first, tl.minimum(first + COLUMNS, at.keys) - 1, at.shift, at.queries, left, right, LEFT, RIGHT, ROWS
    )
    walk = Walk(low, full_low, full_high, full_high, full_high, high)
    if BLOCK:
        walk, blocks, partial = listed(starts, blocks, partial, at.part, head, first, part_step, head_step, BLOCK)
    return Sight(first, at.keys, left, right, blocks, partial, bits), walk


@triton.jit
def listed(starts, blocks, partial, part, head, first, part_step, head_step, BLOCK: tl.constexpr):
    """Return the walk over the blocks that a mask lists for the block of row `first`, and its two lists."""
    line = starts + part.to(INDEX) * part_step + head.to(INDEX) * head_step + first // BLOCK
    entry = tl.load(line)
    low = entry * 0
    # Of none it is known that all pairs are seen.
    high = (tl.load(line + 1) - entry) * BLOCK
    return Walk(low, high, high, high, high, high), blocks + entry, partial + entry
