"""The Triton kernel of the largest scores and their keys."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.rows import block_of_queries, load_tile, row_of, slope_of, table_of, vector_or
from lamina_kernels.attention.score import UNSEEN, Scoring, scores_at
from lamina_kernels.attention.walk import first_of, keys_seen, part_of, visible
from lamina_kernels.tiles.load import INDEX

MINUS_INFINITY = tl.constexpr(float("-inf"))
NUMBERS = ["heads", "group", "queries", "keys", "left", "right", "radius", "splits", "blocks", "plane", "topk"]


@triton.jit
def belongs(largest, start, values, places, BLOCK: tl.constexpr):
    """Return which queries have a score that belongs into their list; of equal ones that of the first key does.

    Tiles come in the order of their keys, but for those of a block mask.
    """
    smallest = tl.min(values, 1)
    found = largest > smallest
    if BLOCK:
        last = tl.max(tl.where(values == smallest[:, None], places, -1), 1)
        found |= (largest == smallest) & (start < last)
    return found


@triton.jit(do_not_specialize=NUMBERS)
def attention_top_kernel(
    q, k,  # see `attention_forward_kernel`, here and below
    query_scale, query_bias, key_scale, key_bias, slopes, table,
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits,
    top_scores,  # [splits, B, H, Nq, topk] float32
    top_keys,  # [splits, B, H, Nq, topk] int64
    q_batch, q_head, q_row, k_batch, k_head, k_row,
    key_scale_batch, key_scale_head, key_bias_batch, key_bias_head, mask_batch, mask_head,
    heads, group, queries, keys, width, blocks, splits, plane, topk,
    scale, cap, radius, left, right,
    PLAIN: tl.constexpr, CAPPED: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """Find the largest scores of ROWS queries of one head among one part of their keys.

    A list of TOP scores a query, falling, takes the largest score of a tile as long as some query has one that
    belongs into its list: of the first tiles TOP, of most others none.
    """
    split = tl.program_id(0) // blocks % splits
    at, head, first, rows, rows_valid, positions, written = block_of_queries(  # pyright: ignore[reportGeneralTypeIssues]
        blocks - 1 - tl.program_id(0) % blocks, tl.program_id(0) // blocks // splits, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, ROWS,
    )  # fmt: skip
    if first >= at.queries:
        return
    key_head = head // group
    q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
    k_from = row_of(k, at.part, key_head, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    a = vector_or(scale, query_scale, written, rows_valid, 1)
    u = vector_or(None, query_bias, written, rows_valid, 1)
    key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
    key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
    slope = slope_of(slopes, head)
    table_from = table_of(table, head, radius)
    sight, walk = keys_seen(
        first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, False,
    )  # fmt: skip
    walk = part_of(walk, split, splits, COLUMNS)

    q_tile = load_tile(q_from, first, rows_valid, at.part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    scoring = Scoring(
        q_tile, k_from, at.keys, positions, a, u, key_scale_from, key_bias_from, slope, table_from, radius, cap,
        at.part, key_head, k_row, width,
    )  # fmt: skip
    slots = tl.arange(0, TOP)[None, :]
    values = tl.full([ROWS, TOP], UNSEEN, tl.float32)
    places = tl.full([ROWS, TOP], -1, tl.int32)
    for place in range(walk.low, walk.high, COLUMNS):
        start = first_of(sight, place, BLOCK)
        s = scores_at(scoring, start, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH)
        these = (start + tl.arange(0, COLUMNS))[None, :]
        if (place < walk.full_low) | (place >= walk.full_high):
            s = tl.where(visible(sight, place, rows[:, None], positions, these, LEFT, RIGHT, BLOCK), s, UNSEEN)
        largest = tl.max(s, 1)
        enters = belongs(largest, start, values, places, BLOCK)
        while tl.max(enters.to(tl.int32), 0) > 0:
            key = start + tl.argmax(s, 1).to(tl.int32)
            ahead = values >= largest[:, None]
            if BLOCK:
                ahead &= (values > largest[:, None]) | (places < key[:, None])
            slot = tl.sum(ahead.to(tl.int32), 1)[:, None]
            before = tl.broadcast_to(tl.maximum(slots - 1, 0), [ROWS, TOP])
            moved_values, moved_places = tl.gather(values, before, 1), tl.gather(places, before, 1)
            into, behind = enters[:, None] & (slots == slot), enters[:, None] & (slots > slot)
            values = tl.where(into, largest[:, None], tl.where(behind, moved_values, values))
            places = tl.where(into, key[:, None], tl.where(behind, moved_places, places))
            s = tl.where(these == key[:, None], UNSEEN, s)
            largest = tl.max(s, 1)
            enters = belongs(largest, start, values, places, BLOCK)

    to_nats = scale if PLAIN else 1.0
    target = (split.to(INDEX) * plane + written)[:, None] * topk + slots
    stored = rows_valid[:, None] & (slots < topk)
    tl.store(top_scores + target, tl.where(places < 0, MINUS_INFINITY, values * to_nats), mask=stored)
    tl.store(top_keys + target, places.to(tl.int64), mask=stored)
