"""The Triton kernel of the gradients of `attend` by the keys and values; see `backward_queries`.

A program has a block of keys and meets the queries of all heads that share them, on tiles keys by queries.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.rows import (
    block_of_keys,
    first_place,
    load_tile,
    row_of,
    slope_of,
    table_of,
    vector,
    vector_or,
)
from lamina_kernels.attention.walk import first_of, place_at, queries_seeing, turns, visible
from lamina_kernels.attention.weights import NO_KEY, score_gradients, weights
from lamina_kernels.tiles.dot import dot, dot_rows, weights_as
from lamina_kernels.tiles.load import load_rows


@triton.jit(do_not_specialize=["heads", "group", "queries", "keys", "blocks", "plane", "left", "right", "radius"])
def keys_kernel(
    q, k, v, dout,  # [B, H, Nq, D], [B, Hk, Nk, D], [B, Hk, Nk, Dv], [B, H, Nq, Dv] or None: rows contiguous inside
    query_scale, query_bias, key_scale, key_bias, slopes, table, columns,  # see `operands`
    terms, argmax, to_columns,  # [planes, B, H, Nq] float32, [B, H, Nq] int32, [B, H, Nq, C] float32
    dk, dv, dkey_scale, dkey_bias,  # [B, Hk, Nk, D], [B, Hk, Nk, Dv], [B, H, Nk] float32 the others, or None
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, dout_batch, dout_head, dout_row,
    key_scale_batch, key_scale_head, key_bias_batch, key_bias_head, columns_batch, columns_head, columns_row,
    heads, group, queries, keys, blocks, plane, width, value_width, column_count,
    scale, bare_scale, unscale, cap, radius, left, right,
    CAPPED: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, SIGMOID: tl.constexpr,
    CONSTANT: tl.constexpr, LOG: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr, ABSOLUTE: tl.constexpr,
    MAX: tl.constexpr, PRECISION: tl.constexpr, COLUMN_PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradients of COLUMNS keys and their values, and of the keys' factors and terms, which each head has.

    The grid is one-dimensional: blocks of keys run fastest, then heads of keys, then sequences.
    """
    at, key_head, first, others, exists = block_of_keys(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0) % blocks, tl.program_id(0) // blocks, heads // group,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, COLUMNS,
    )  # fmt: skip
    if first >= at.keys:
        return
    places = others[:, None]
    k_from = row_of(k, at.part, key_head, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    v_from = row_of(v, at.part, key_head, at.first_key, v_batch, v_head, v_row, DESCRIPTORS)
    k_tile = load_tile(k_from, first, exists, at.part, key_head, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
    if dout is not None:
        d_value = tl.zeros([COLUMNS, VALUE_WIDTH], tl.float32)
        v_tile = load_tile(
            v_from, first, exists, at.part, key_head, v_row, value_width, DESCRIPTORS, COLUMNS, VALUE_WIDTH
        )

    d_key = tl.zeros([COLUMNS, WIDTH], tl.float32)
    for member in range(group):
        head = key_head * group + member
        q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
        dout_from = row_of(dout, at.part, head, at.first_query, dout_batch, dout_head, dout_row, DESCRIPTORS)
        key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
        key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
        c = vector_or(None, key_scale_from, others, exists, 1)
        w = vector_or(None, key_bias_from, others, exists, 1)
        slope = slope_of(slopes, head)
        table_from = table_of(table, head, radius)
        if columns is not None:
            columns_from = row_of(columns, at.part, head, at.first_key, columns_batch, columns_head, columns_row, False)
            columns_tile = load_rows(columns_from, others, columns_row, exists, 0, column_count, 16)
        sight, walk = queries_seeing(
            first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
            LEFT, RIGHT, BLOCK, ROWS, COLUMNS, False,
        )  # fmt: skip
        d_term = tl.zeros([COLUMNS], tl.float32)
        d_scale = tl.zeros([COLUMNS], tl.float32)
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
                a = vector_or(scale, query_scale, place, valid, 0)
                u = vector_or(None, query_bias, place, valid, 0)
                lse = 0.0
                if not SIGMOID:
                    lse = vector(terms, place, valid, NO_KEY, 0)
                inside = True
                if EDGE:
                    inside = visible(sight, tile, rows[None, :], positions, places, LEFT, RIGHT, BLOCK)
                p, t, bent = weights(
                    products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, lse,
                    EDGE, SIGMOID, CAPPED,
                )  # fmt: skip
                dp = tl.zeros([COLUMNS, ROWS], tl.float32)
                if dout is not None:
                    dout_tile = load_tile(
                        dout_from, start, valid, at.part, head, dout_row, value_width, DESCRIPTORS, ROWS, VALUE_WIDTH
                    )
                    d_value = dot(weights_as(p, dout_tile), dout_tile, d_value, PRECISION)
                    dp = dot_rows(v_tile, dout_tile, dp, PRECISION)
                if columns is not None:
                    to_columns_tile = load_rows(to_columns, place, column_count, valid, 0, column_count, 16)
                    dp = dot_rows(columns_tile, to_columns_tile, dp, COLUMN_PRECISION)
                ds = score_gradients(
                    dp, p, t, positions, places, terms, argmax, place, plane, valid,
                    CONSTANT, LOG, SQUARE, DISTANCE, ABSOLUTE, MAX, SIGMOID, 0,
                )  # fmt: skip
                if CAPPED:
                    ds -= ds * bent * bent
                if dkey_bias is not None:
                    d_term += tl.sum(ds, axis=1)
                if query_scale is not None:
                    ds *= a
                if dkey_scale is not None:
                    d_scale += tl.sum(ds * products, axis=1)
                    ds *= c
                d_key = dot(weights_as(ds, q_tile), q_tile, d_key, PRECISION)
        written = first_place(at.part, head, heads, at.first_key, keys) + others
        if dkey_bias is not None:
            tl.store(dkey_bias + written, d_term, mask=exists)
        if dkey_scale is not None:
            tl.store(dkey_scale + written, d_scale * unscale, mask=exists)

    written = first_place(at.part, key_head, heads // group, at.first_key, keys) + others
    inner = tl.arange(0, WIDTH)
    tl.store(
        dk + written[:, None] * width + inner[None, :], (d_key * unscale).to(dk.dtype.element_ty),
        mask=exists[:, None] & (inner < width)[None, :],
    )  # fmt: skip
    if dout is not None:
        inner_value = tl.arange(0, VALUE_WIDTH)
        tl.store(
            dv + written[:, None] * value_width + inner_value[None, :], d_value.to(dv.dtype.element_ty),
            mask=exists[:, None] & (inner_value < value_width)[None, :],
        )  # fmt: skip
