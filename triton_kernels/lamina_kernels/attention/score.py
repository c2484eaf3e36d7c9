"""Triton functions of one tile of scores, which every kernel of attention shares."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import INTERPRETED, dot_rows
from lamina_kernels.tiles.load import INDEX, load_rows

# What a pair scores that is not seen: finite, because 0 times infinity is not a number.
UNSEEN = tl.constexpr(-1e30)

LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def sequence(batch, cu_seqlens, rows):
    """Return where the sequence of this number starts and how many rows it has."""
    if cu_seqlens is None:
        return rows * 0, rows
    else:
        first = tl.load(cu_seqlens + batch)
        return first, tl.load(cu_seqlens + batch + 1) - first


@triton.jit
def tanh(x):
    """Return tanh x to about one unit in the last place, also near 0."""
    y = x * x
    near = 0.016324041411280632
    near = near * y - 0.052594538778066635
    near = near * y + 0.13318976759910583
    near = near * y - 0.3333280086517334
    near = x + x * y * near
    # Beyond 30, where tanh is 1, the exponential must not overflow.
    far = 1 - 2 / (tl.exp2(tl.minimum(tl.abs(x), 30.0) * (2 * LOG2E)) + 1)
    return tl.where(tl.abs(x) < 0.55, near, tl.where(x < 0, -far, far))


@triton.jit
def scores(products, positions, columns, a, c, u, w, slope, table, radius, cap, CAPPED: tl.constexpr):
    """Return s_ij times `nat` of `operands.arguments`, at least UNSEEN, and tanh of what is capped, else s again.

    A tile is queries by keys or keys by queries: what belongs to a query comes as [R, 1] or [1, R], what belongs to a
    key the other way round; factors and terms that do not exist are None.

    Args:
        products: <q_i, k_j>, float32.
        positions: The key at which each query stands.
        columns: The keys.
        a: The factor of the query, with all that is constant; or a number.
        c: The factor of the key.
        u: The term of the query.
        w: The term of the key; -inf where nobody sees it.
        slope: A number: b(i, j) is -slope |i - j|.
        table: The first element of the table of distances of this head.
        radius: The largest distance of the table.
        cap: The cap, times `nat`.
        CAPPED: Whether there is one.
    """
    s = products * a
    if c is not None:
        s *= c
    if w is not None:
        s += w
    if u is not None:
        s += u
    bent = s
    if CAPPED:
        bent = tanh(s)
        s = cap * bent
        if w is not None:
            s = tl.where(w == float("-inf"), UNSEEN, s)
    if slope is not None:
        s -= slope * tl.abs(positions - columns).to(tl.float32)
    if table is not None:
        s += tl.load(table + radius + tl.minimum(tl.maximum(positions - columns, -radius), radius))
    if w is not None or u is not None or table is not None:
        # A term may be -inf. NaN stays.
        s = tl.where(s < UNSEEN, UNSEEN, s)
    return s, bent


@triton.jit
def scores_of_keys(
    q, k, start, keys, positions,
    a, u, key_scale, key_bias, slope, table, radius, cap,
    batch, key_head, k_row, width,
    PLAIN: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Load the keys from `start` on and return their scores, [R, COLUMNS]: bare products if PLAIN; see `scores`.

    Args:
        q: [R, WIDTH].
        k: The first key of the sequence and head, or a descriptor of all keys.
        start: The first key of the tile.
        keys: Keys of the sequence.
        positions: [R, 1].
        a: See `scores`.
        u: See `scores`.
        key_scale: The factor of the first key, or None.
        key_bias: The term of the first key, or None.
        slope: See `scores`.
        table: See `scores`.
        radius: See `scores`.
        cap: See `scores`.
        batch: The sequence, for a descriptor.
        key_head: The head of the keys, for a descriptor.
        k_row: Elements from one key to the next.
        width: Columns of q and k.
        PLAIN: Whether a score is its product; see `operands.arguments`.
        CAPPED: Whether there is a cap.
        PRECISION: How float32 is multiplied.
        DESCRIPTORS: Whether `k` is a descriptor.
        COLUMNS: Keys of the tile.
        WIDTH: Columns of the tile of keys, at least `width`.
    """
    columns = start + tl.arange(0, COLUMNS)
    valid = columns < keys
    tile = load_tile(k, start, valid, batch, key_head, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
    products = dot_rows(q, tile, tl.zeros([q.shape[0], COLUMNS], tl.float32), PRECISION)
    if PLAIN:
        return products
    else:
        c, w = None, None
        if key_scale is not None:
            c = tl.load(key_scale + columns, mask=valid, other=0.0)[None, :]
        if key_bias is not None:
            w = tl.load(key_bias + columns, mask=valid, other=0.0)[None, :]
        s, _ = scores(products, positions, columns[None, :], a, c, u, w, slope, table, radius, cap, CAPPED)
        return s


@triton.jit
def load_tile(
    source, first, valid, batch, head, stride, width,
    DESCRIPTORS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Load the [ROWS, WIDTH] tile from row `first` on, by a descriptor of the whole tensor or by addresses."""
    if DESCRIPTORS:
        return source.load([batch, head, first, 0]).reshape(ROWS, WIDTH)
    else:
        return load_rows(source, first + tl.arange(0, ROWS), stride, valid, 0, width, WIDTH)


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
def seen_of_block(bits, partial, rows, columns, BLOCK: tl.constexpr):
    """Return which pairs of a tile inside a block are seen; all of them if `partial` is -1."""
    columns = columns % BLOCK
    words = (partial.to(INDEX) * BLOCK + rows % BLOCK) * (BLOCK // 32) + columns // 32
    return (tl.load(bits + words, mask=partial >= 0, other=-1) >> (columns % 32)) & 1 != 0


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
def vector(pointer, place, valid, other, AXIS: tl.constexpr):
    """Load a number a row, to stand along a tile with one column (AXIS 1) or one row (AXIS 0)."""
    return tl.expand_dims(tl.load(pointer + place, mask=valid, other=other), AXIS)


@triton.jit
def weights_as(p, v):
    """Return weights in the dtype in which they are multiplied with `v`.

    The interpreter cuts digits off where it makes bfloat16: there they stay in single precision.
    """
    if INTERPRETED and v.dtype == tl.bfloat16:
        return p
    else:
        return p.to(v.dtype)
