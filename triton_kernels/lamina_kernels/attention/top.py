"""The Triton kernel of the largest scores and their keys."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.score import (
    UNSEEN,
    key_range,
    load_tile,
    scores_of_keys,
    seen,
    seen_of_block,
    sequence,
)
from lamina_kernels.tiles.load import INDEX

MINUS_INFINITY = tl.constexpr(float("-inf"))
NUMBERS = ["heads", "group", "queries", "keys", "left", "right", "radius", "splits", "blocks", "plane", "topk"]


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
    block = blocks - 1 - tl.program_id(0) % blocks
    split = tl.program_id(0) // blocks % splits
    head = tl.program_id(0) // blocks // splits % heads
    batch = tl.program_id(0) // blocks // splits // heads
    key_head = head // group

    first_query, queries_here = sequence(batch, cu_seqlens_q, queries)  # pyright: ignore[reportGeneralTypeIssues]
    first_key, keys_here = sequence(batch, cu_seqlens_k, keys)
    if block * ROWS >= queries_here:
        return
    rows = block * ROWS + tl.arange(0, ROWS)
    rows_valid = rows < queries_here
    shift = keys_here - queries_here if BOTTOM_RIGHT else 0
    positions = (rows + shift)[:, None]

    part = batch if cu_seqlens_q is None else batch * 0
    part64, head64, key_head64 = part.to(INDEX), head.to(INDEX), key_head.to(INDEX)
    if DESCRIPTORS:
        q_from, k_from = q, k
    else:
        q_from = q + part64 * q_batch + head64 * q_head + first_query.to(INDEX) * q_row
        k_from = k + part64 * k_batch + key_head64 * k_head + first_key.to(INDEX) * k_row
    written = (part64 * heads + head64) * queries + first_query
    a, u, key_scale_from, key_bias_from, slope, table_from = scale, None, None, None, None, None
    if query_scale is not None:
        a = tl.load(query_scale + written + rows, mask=rows_valid, other=0.0)[:, None]
    if query_bias is not None:
        u = tl.load(query_bias + written + rows, mask=rows_valid, other=0.0)[:, None]
    if key_scale is not None:
        key_scale_from = key_scale + part64 * key_scale_batch + head64 * key_scale_head + first_key
    if key_bias is not None:
        key_bias_from = key_bias + part64 * key_bias_batch + head64 * key_bias_head + first_key
    if slopes is not None:
        slope = tl.load(slopes + head)
    if table is not None:
        table_from = table + head64 * (2 * radius + 1)

    low, full_low, full_high, high = key_range(
        block * ROWS + shift, tl.minimum(block * ROWS + ROWS, queries_here) - 1 + shift,
        keys_here, left, right, LEFT, RIGHT, COLUMNS,
    )  # fmt: skip
    if BLOCK:
        mask_from = mask_starts + part64 * mask_batch + head64 * mask_head + block * ROWS // BLOCK
        first = tl.load(mask_from) * (BLOCK // COLUMNS)
        tiles = tl.load(mask_from + 1) * (BLOCK // COLUMNS) - first
    else:
        first, tiles = low // COLUMNS, (high - low) // COLUMNS
    share = tl.cdiv(tiles, splits)
    last = first + tl.minimum(split * share + share, tiles)
    first += split * share

    q_tile = load_tile(q_from, block * ROWS, rows_valid, part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    slots = tl.arange(0, TOP)[None, :]
    values = tl.full([ROWS, TOP], UNSEEN, tl.float32)
    places = tl.full([ROWS, TOP], -1, tl.int32)
    # Tiles come in the order of their keys: of equal scores, those in the list come first.
    for tile in range(first, last):
        if BLOCK:
            entry = tile // (BLOCK // COLUMNS)
            partial = tl.load(mask_partial + entry)
            start = tl.load(mask_blocks + entry) * BLOCK + tile % (BLOCK // COLUMNS) * COLUMNS
            edge = (partial >= 0) | (start < full_low) | (start >= full_high)
        else:
            start = tile * COLUMNS
            edge = (start < full_low) | (start >= full_high)
        s = scores_of_keys(
            q_tile, k_from, start, keys_here, positions,
            a, u, key_scale_from, key_bias_from, slope, table_from, radius, cap,
            part, key_head, k_row, width, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH,
        )  # fmt: skip
        these = (start + tl.arange(0, COLUMNS))[None, :]
        if edge:
            inside = seen(positions, these, keys_here, left, right, LEFT, RIGHT)
            if BLOCK:
                inside &= seen_of_block(mask_bits, partial, rows[:, None], these, BLOCK)
            s = tl.where(inside, s, UNSEEN)
        largest = tl.max(s, 1)
        enters = largest > tl.min(values, 1)
        while tl.max(enters.to(tl.int32), 0) > 0:
            key = start + tl.argmax(s, 1).to(tl.int32)
            slot = tl.sum((values >= largest[:, None]).to(tl.int32), 1)[:, None]
            before = tl.broadcast_to(tl.maximum(slots - 1, 0), [ROWS, TOP])
            moved_values, moved_places = tl.gather(values, before, 1), tl.gather(places, before, 1)
            into, behind = enters[:, None] & (slots == slot), enters[:, None] & (slots > slot)
            values = tl.where(into, largest[:, None], tl.where(behind, moved_values, values))
            places = tl.where(into, key[:, None], tl.where(behind, moved_places, places))
            s = tl.where(these == key[:, None], UNSEEN, s)
            largest = tl.max(s, 1)
            enters = largest > tl.min(values, 1)

    to_nats = scale if PLAIN else 1.0
    target = (split.to(INDEX) * plane + written + rows)[:, None] * topk + slots
    stored = rows_valid[:, None] & (slots < topk)
    tl.store(top_scores + target, tl.where(places < 0, MINUS_INFINITY, values * to_nats), mask=stored)
    tl.store(top_keys + target, places.to(tl.int64), mask=stored)
