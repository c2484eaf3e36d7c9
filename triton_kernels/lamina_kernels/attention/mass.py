"""The Triton kernels of the second pass: what keys receive, and how many keys have more than a share."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.rows import (
    block_of_keys,
    block_of_queries,
    first_place,
    load_tile,
    row_of,
    slope_of,
    table_of,
    vector,
    vector_or,
)
from lamina_kernels.attention.walk import first_of, keys_seen, place_at, queries_seeing, turns, visible
from lamina_kernels.attention.weights import NO_KEY, weights
from lamina_kernels.tiles.dot import dot_rows


@triton.jit(do_not_specialize=["heads", "group", "queries", "keys", "blocks", "left", "right", "radius"])
def received_kernel(
    q, k,  # [B, H, Nq, D], [B, Hk, Nk, D]: rows contiguous inside
    query_scale, query_bias, key_scale, key_bias, slopes, table,  # see `operands`
    lse,  # [B, H, Nq] float32, in units of log 2, NO_KEY for a query without weights; None for a sigmoid
    received, tiles,  # [B, H, Nk], [B, H, query tiles, key tiles] float32, or None
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    q_batch, q_head, q_row, k_batch, k_head, k_row,
    key_scale_batch, key_scale_head, key_bias_batch, key_bias_head,
    heads, group, queries, keys, blocks, width, scale, cap, radius, left, right,
    CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, SIGMOID: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write what COLUMNS keys receive from all queries of one head, and the sum of each tile.

    The grid is one-dimensional: blocks of keys run fastest, then heads, then sequences.
    """
    block = tl.program_id(0) % blocks
    at, head, first, others, exists = block_of_keys(  # pyright: ignore[reportGeneralTypeIssues]
        block, tl.program_id(0) // blocks, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, COLUMNS,
    )  # fmt: skip
    if first >= at.keys:
        return
    places = others[:, None]
    q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
    k_from = row_of(k, at.part, head // group, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
    key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
    k_tile = load_tile(k_from, first, exists, at.part, head // group, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
    c = vector_or(None, key_scale_from, others, exists, 1)
    w = vector_or(None, key_bias_from, others, exists, 1)
    slope = slope_of(slopes, head)
    table_from = table_of(table, head, radius)
    sight, walk = queries_seeing(
        first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, True,
    )  # fmt: skip
    mass = tl.zeros([COLUMNS], tl.float32)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE, ROWS)):
            tile = place_at(walk, turn, EDGE, ROWS)
            start = first_of(sight, tile, BLOCK)
            rows = start + tl.arange(0, ROWS)
            valid = rows < at.queries
            positions = rows[None, :] + at.shift
            place = first_place(at.part, head, heads, at.first_query, queries) + rows
            q_tile = load_tile(q_from, start, valid, at.part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
            products = dot_rows(k_tile, q_tile, tl.zeros([COLUMNS, ROWS], tl.float32), PRECISION)
            some = valid if EDGE else None
            a = vector_or(scale, query_scale, place, some, 0)
            u = vector_or(None, query_bias, place, some, 0)
            l = 0.0  # noqa: E741
            if not SIGMOID:
                l = vector(lse, place, some, NO_KEY, 0)  # noqa: E741
            inside = True
            if EDGE:
                inside = visible(sight, tile, rows[None, :], positions, places, LEFT, RIGHT, BLOCK)
            p, _, _ = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, l,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            if SIGMOID and EDGE:
                # No log-sum-exp says that a query does not exist.
                p = tl.where(valid[None, :], p, 0.0)
            of_keys = tl.sum(p, axis=1)
            mass += of_keys
            if tiles is not None:
                sum_of = first_place(at.part, head, heads, start // ROWS, tl.cdiv(queries, ROWS)) * blocks + block
                # A block of a mask may end behind the last query.
                tl.store(tiles + sum_of, tl.sum(tl.where(exists, of_keys, 0.0), axis=0), mask=start < at.queries)
    if received is not None:
        place = first_place(at.part, head, heads, at.first_key, keys) + others
        tl.store(received + place, mass, mask=exists)


@triton.jit(do_not_specialize=["heads", "group", "queries", "keys", "blocks", "left", "right", "radius"])
def above_kernel(
    q, k, query_scale, query_bias, key_scale, key_bias, slopes, table, lse,  # as in `received_kernel`
    share, above,  # what a weight has to exceed; [B, H, Nq] int64
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    q_batch, q_head, q_row, k_batch, k_head, k_row,
    key_scale_batch, key_scale_head, key_bias_batch, key_bias_head,
    heads, group, queries, keys, blocks, width, scale, cap, radius, left, right,
    CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, SIGMOID: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write how many keys have a weight above the share, for ROWS queries of one head; the grid is that of queries."""
    at, head, first, rows, valid, positions, place = block_of_queries(  # pyright: ignore[reportGeneralTypeIssues]
        blocks - 1 - tl.program_id(0) % blocks, tl.program_id(0) // blocks, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, ROWS,
    )  # fmt: skip
    if first >= at.queries:
        return
    q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
    k_from = row_of(k, at.part, head // group, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
    key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
    q_tile = load_tile(q_from, first, valid, at.part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    a = vector_or(scale, query_scale, place, valid, 1)
    u = vector_or(None, query_bias, place, valid, 1)
    slope = slope_of(slopes, head)
    table_from = table_of(table, head, radius)
    l = 0.0  # noqa: E741
    if not SIGMOID:
        l = vector(lse, place, valid, NO_KEY, 1)  # noqa: E741

    sight, walk = keys_seen(
        first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, False,
    )  # fmt: skip
    number = tl.zeros([ROWS], tl.int32)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE, COLUMNS)):
            tile = place_at(walk, turn, EDGE, COLUMNS)
            start = first_of(sight, tile, BLOCK)
            others = start + tl.arange(0, COLUMNS)
            exists = others < at.keys
            places = others[None, :]
            k_tile = load_tile(k_from, start, exists, at.part, head // group, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
            products = dot_rows(q_tile, k_tile, tl.zeros([ROWS, COLUMNS], tl.float32), PRECISION)
            c = vector_or(None, key_scale_from, others, exists, 0)
            w = vector_or(None, key_bias_from, others, exists, 0)
            inside = True
            if EDGE:
                inside = visible(sight, tile, rows[:, None], positions, places, LEFT, RIGHT, BLOCK)
            p, _, _ = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, l,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            number += tl.sum((p > share).to(tl.int32), axis=1)
    tl.store(above + place, number.to(tl.int64), mask=valid)
