"""Triton functions of one tile of scores, which every kernel of attention shares."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.attention.rows import load_tile, vector_or
from lamina_kernels.tiles.dot import dot_rows

# What a pair scores that is not seen: finite, because 0 times infinity is not a number; and a power of 2, so that a
# query that sees nothing yet is 0 below its largest score also where the product with a scale is not rounded.
UNSEEN = tl.constexpr(-(2.0**100))

LN2 = tl.constexpr(0.6931471805599453)
LOG2E = tl.constexpr(1.4426950408889634)


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


class Scoring(NamedTuple):
    """What turns a tile of keys into the scores that some queries give them.

    Attributes:
        q: [R, WIDTH]: the queries.
        k: The first key of the sequence and head, or a descriptor of all keys.
        keys: Keys of the sequence.
        positions: [R, 1]: the key at which each query stands.
        a: See `scores`.
        u: See `scores`.
        key_scale: The factor of the first key, or None.
        key_bias: The term of the first key, or None.
        slope: See `scores`.
        table: See `scores`.
        radius: See `scores`.
        cap: See `scores`.
        part: The sequence, for a descriptor.
        head: The head of the keys, for a descriptor.
        k_row: Elements from one key to the next.
        width: Columns of q and k.
    """

    q: tl.tensor
    k: tl.tensor | tl.tensor_descriptor
    keys: tl.tensor
    positions: tl.tensor
    a: tl.tensor
    u: tl.tensor | None
    key_scale: tl.tensor | None
    key_bias: tl.tensor | None
    slope: tl.tensor | None
    table: tl.tensor | None
    radius: tl.tensor
    cap: tl.tensor
    part: tl.tensor
    head: tl.tensor
    k_row: tl.tensor
    width: tl.tensor


@triton.jit
def scores_at(
    of, start,
    PLAIN: tl.constexpr, CAPPED: tl.constexpr, PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Return the scores of the keys from `start` on, [R, COLUMNS]: bare products if PLAIN; see `scores`.

    Args:
        of: The `Scoring`.
        start: The first key of the tile.
        PLAIN: Whether a score is its product; see `operands.arguments`.
        CAPPED: Whether there is a cap.
        PRECISION: How float32 is multiplied.
        DESCRIPTORS: Whether `k` is a descriptor.
        COLUMNS: Keys of a tile.
        WIDTH: Columns of a tile of keys, at least `width`.
    """
    columns = start + tl.arange(0, COLUMNS)
    valid = columns < of.keys
    tile = load_tile(of.k, start, valid, of.part, of.head, of.k_row, of.width, DESCRIPTORS, COLUMNS, WIDTH)
    products = dot_rows(of.q, tile, tl.zeros([of.q.shape[0], COLUMNS], tl.float32), PRECISION)
    if PLAIN:
        return products
    else:
        c = vector_or(None, of.key_scale, columns, valid, 0)
        w = vector_or(None, of.key_bias, columns, valid, 0)
        s, _ = scores(
            products, of.positions, columns[None, :], of.a, c, of.u, w, of.slope, of.table, of.radius, of.cap, CAPPED
        )
        return s
