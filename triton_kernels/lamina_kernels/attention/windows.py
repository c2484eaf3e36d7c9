"""Triton functions of what is seen in a window, and of a block of a mask."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.load import INDEX


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
    first_key, last_key, shift, queries, left, right,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, EXIST: tl.constexpr,
):  # fmt: skip
    """Return which tiles of queries see a block of keys, as `key_range` does for keys.

    Unless queries of full tiles EXIST, those that do not count as such that see everything: their weights are 0.
    """
    low, high, full_low, full_high = queries * 0, queries, queries * 0, queries
    if not EXIST:
        full_high = tl.cdiv(queries, ROWS) * ROWS
    if RIGHT:
        low = tl.minimum(tl.maximum(first_key - shift - right, 0), queries)
        full_low = tl.minimum(tl.maximum(last_key - shift - right, 0), queries)
    if LEFT:
        high = tl.minimum(tl.maximum(last_key - shift + left + 1, 0), queries)
        full_high = tl.minimum(tl.maximum(first_key - shift + left + 1, 0), full_high)
    low = low // ROWS * ROWS
    high = tl.maximum(tl.cdiv(high, ROWS) * ROWS, low)
    full_low = tl.minimum(tl.maximum(tl.cdiv(full_low, ROWS) * ROWS, low), high)
    full_high = tl.minimum(tl.maximum(full_high // ROWS * ROWS, full_low), high)
    return low, full_low, full_high, high
