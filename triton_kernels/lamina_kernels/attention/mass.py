"""The Triton kernels of the second pass: what keys receive, and how many keys have more than a share."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.backward import NO_KEY, weights
from lamina_kernels.attention.score import (
    key_range,
    load_tile,
    query_range,
    seen,
    seen_of_block,
    sequence,
    vector,
)
from lamina_kernels.tiles.dot import dot_rows
from lamina_kernels.tiles.load import INDEX


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
    head32 = tl.program_id(0) // blocks % heads
    head = head32.to(INDEX)
    index = tl.program_id(0) // blocks // heads
    first_query, n_queries = sequence(index, cu_seqlens_q, queries)  # pyright: ignore[reportGeneralTypeIssues]
    first_key, n_keys = sequence(index, cu_seqlens_k, keys)
    if block * COLUMNS >= n_keys:
        return
    # Packed sequences are parts of one batch.
    part = index if cu_seqlens_q is None else index * 0
    batch = part.to(INDEX)
    shift = n_keys - n_queries if BOTTOM_RIGHT else 0

    others = block * COLUMNS + tl.arange(0, COLUMNS)
    exists = others < n_keys
    places = others[:, None]
    key_place = first_key.to(INDEX) + others
    q_from, k_from = q, k
    if not DESCRIPTORS:
        q_from = q + batch * q_batch + head * q_head + first_query.to(INDEX) * q_row
        k_from = k + batch * k_batch + head // group * k_head + first_key.to(INDEX) * k_row
    k_tile = load_tile(
        k_from, block * COLUMNS, exists, part, head32 // group, k_row, width, DESCRIPTORS, COLUMNS, WIDTH
    )
    c, w, slope, table_from = None, None, None, None
    if key_scale is not None:
        c = vector(key_scale + batch * key_scale_batch + head * key_scale_head, key_place, exists, 0.0, 1)
    if key_bias is not None:
        w = vector(key_bias + batch * key_bias_batch + head * key_bias_head, key_place, exists, 0.0, 1)
    if slopes is not None:
        slope = tl.load(slopes + head)
    if table is not None:
        table_from = table + head * (2 * radius + 1)

    low, full_low, full_high, high = query_range(
        block * COLUMNS, tl.minimum(block * COLUMNS + COLUMNS, n_keys) - 1, shift, n_queries,
        left, right, LEFT, RIGHT, ROWS,
    )  # fmt: skip
    if BLOCK:
        starts = mask_starts + batch * mask_batch + head * mask_head + block * COLUMNS // BLOCK
        low = tl.load(starts) * (BLOCK // ROWS)
        high = tl.load(starts + 1) * (BLOCK // ROWS)
    mass = tl.zeros([COLUMNS], tl.float32)
    for EDGE in tl.static_range(0, 2):
        if BLOCK:
            count = (high - low) * EDGE
        elif EDGE:
            count = (full_low - low + high - full_high) // ROWS
        else:
            count = (full_high - full_low) // ROWS
        for turn in range(count):
            if BLOCK:
                entry = (low + turn) // (BLOCK // ROWS)
                start = tl.load(mask_blocks + entry) * BLOCK + (low + turn) % (BLOCK // ROWS) * ROWS
            elif EDGE:
                start = low + turn * ROWS
                start += tl.where(start >= full_low, full_high - full_low, 0)
            else:
                start = full_low + turn * ROWS
            rows = start + tl.arange(0, ROWS)
            valid = rows < n_queries
            positions = rows[None, :] + shift
            place = (batch * heads + head) * queries + first_query + rows
            q_tile = load_tile(q_from, start, valid, part, head32, q_row, width, DESCRIPTORS, ROWS, WIDTH)
            products = dot_rows(k_tile, q_tile, tl.zeros([COLUMNS, ROWS], tl.float32), PRECISION)
            a, u, l = scale, None, 0.0  # noqa: E741
            if query_scale is not None:
                a = vector(query_scale, place, valid, 0.0, 0)
            if query_bias is not None:
                u = vector(query_bias, place, valid, 0.0, 0)
            if not SIGMOID:
                l = vector(lse, place, valid, NO_KEY, 0)  # noqa: E741
            inside = True
            if EDGE:
                inside = seen(positions, places, n_keys, left, right, LEFT, RIGHT)
                if BLOCK:
                    partial = tl.load(mask_partial + entry)
                    inside = inside & seen_of_block(mask_bits, partial, rows[None, :], places, BLOCK)
            p, _, _ = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, l,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            if SIGMOID:
                # No log-sum-exp says that a query does not exist.
                p = tl.where(valid[None, :], p, 0.0)
            of_keys = tl.sum(p, axis=1)
            mass += of_keys
            if tiles is not None:
                tile = ((batch * heads + head) * tl.cdiv(queries, ROWS) + start // ROWS) * blocks + block
                # A block of a mask may end behind the last query.
                tl.store(tiles + tile, tl.sum(tl.where(exists, of_keys, 0.0), axis=0), mask=start < n_queries)
    if received is not None:
        tl.store(received + (batch * heads + head) * keys + key_place, mass, mask=exists)


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
    block = blocks - 1 - tl.program_id(0) % blocks
    head32 = tl.program_id(0) // blocks % heads
    head = head32.to(INDEX)
    index = tl.program_id(0) // blocks // heads
    first_query, n_queries = sequence(index, cu_seqlens_q, queries)  # pyright: ignore[reportGeneralTypeIssues]
    first_key, n_keys = sequence(index, cu_seqlens_k, keys)
    if block * ROWS >= n_queries:
        return
    # Packed sequences are parts of one batch.
    part = index if cu_seqlens_q is None else index * 0
    batch = part.to(INDEX)
    shift = n_keys - n_queries if BOTTOM_RIGHT else 0

    rows = block * ROWS + tl.arange(0, ROWS)
    valid = rows < n_queries
    positions = rows[:, None] + shift
    place = (batch * heads + head) * queries + first_query + rows
    key_place = first_key.to(INDEX)
    q_from, k_from = q, k
    if not DESCRIPTORS:
        q_from = q + batch * q_batch + head * q_head + first_query.to(INDEX) * q_row
        k_from = k + batch * k_batch + head // group * k_head + key_place * k_row
    q_tile = load_tile(q_from, block * ROWS, valid, part, head32, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    a, u, slope, table_from, l = scale, None, None, None, 0.0  # noqa: E741
    if query_scale is not None:
        a = vector(query_scale, place, valid, 0.0, 1)
    if query_bias is not None:
        u = vector(query_bias, place, valid, 0.0, 1)
    if slopes is not None:
        slope = tl.load(slopes + head)
    if table is not None:
        table_from = table + head * (2 * radius + 1)
    if not SIGMOID:
        l = vector(lse, place, valid, NO_KEY, 1)  # noqa: E741

    low, full_low, full_high, high = key_range(
        block * ROWS + shift, tl.minimum(block * ROWS + ROWS, n_queries) - 1 + shift, n_keys,
        left, right, LEFT, RIGHT, COLUMNS,
    )  # fmt: skip
    if BLOCK:
        starts = mask_starts + batch * mask_batch + head * mask_head + block * ROWS // BLOCK
        low = tl.load(starts) * (BLOCK // COLUMNS)
        high = tl.load(starts + 1) * (BLOCK // COLUMNS)
    number = tl.zeros([ROWS], tl.int32)
    for EDGE in tl.static_range(0, 2):
        if BLOCK:
            count = (high - low) * EDGE
        elif EDGE:
            count = (full_low - low + high - full_high) // COLUMNS
        else:
            count = (full_high - full_low) // COLUMNS
        for turn in range(count):
            if BLOCK:
                entry = (low + turn) // (BLOCK // COLUMNS)
                start = tl.load(mask_blocks + entry) * BLOCK + (low + turn) % (BLOCK // COLUMNS) * COLUMNS
            elif EDGE:
                start = low + turn * COLUMNS
                start += tl.where(start >= full_low, full_high - full_low, 0)
            else:
                start = full_low + turn * COLUMNS
            others = start + tl.arange(0, COLUMNS)
            exists = others < n_keys
            places = others[None, :]
            k_tile = load_tile(k_from, start, exists, part, head32 // group, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
            products = dot_rows(q_tile, k_tile, tl.zeros([ROWS, COLUMNS], tl.float32), PRECISION)
            c, w = None, None
            if key_scale is not None:
                c = vector(
                    key_scale + batch * key_scale_batch + head * key_scale_head, key_place + others, exists, 0.0, 0
                )
            if key_bias is not None:
                w = vector(key_bias + batch * key_bias_batch + head * key_bias_head, key_place + others, exists, 0.0, 0)
            inside = True
            if EDGE:
                inside = seen(positions, places, n_keys, left, right, LEFT, RIGHT)
                if BLOCK:
                    partial = tl.load(mask_partial + entry)
                    inside = inside & seen_of_block(mask_bits, partial, rows[:, None], places, BLOCK)
            p, _, _ = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, l,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            number += tl.sum((p > share).to(tl.int32), axis=1)
    tl.store(above + place, number.to(tl.int64), mask=valid)
