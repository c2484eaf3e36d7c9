"""The Triton kernel of the gradients of `attend` by the queries.

Here and in `backward_keys` the weights are computed again, from the log-sum-exp of each query, and the gradients of the
scores by the formulas of `gradients`; neither adds atomically. A program here has a block of queries and meets keys.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.rows import block_of_queries, load_tile, row_of, slope_of, table_of, vector, vector_or
from lamina_kernels.attention.walk import first_of, keys_seen, place_at, turns, visible
from lamina_kernels.attention.weights import NO_KEY, score_gradients, weights
from lamina_kernels.tiles.dot import dot, dot_rows, weights_as
from lamina_kernels.tiles.load import load_rows


@triton.jit(do_not_specialize=["heads", "group", "queries", "keys", "blocks", "plane", "left", "right", "radius"])
def queries_kernel(
    q, k, v, dout,  # [B, H, Nq, D], [B, Hk, Nk, D], [B, Hk, Nk, Dv], [B, H, Nq, Dv] or None: rows contiguous inside
    query_scale, query_bias, key_scale, key_bias, slopes, table, columns,  # see `operands`
    terms, argmax, to_columns,  # [planes, B, H, Nq] float32, [B, H, Nq] int32, [B, H, Nq, C] float32
    dq, dquery_scale, dquery_bias, dslopes,  # [B, H, Nq, D], [B, H, Nq] float32 the others, or None
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
    """Write the gradients of ROWS queries, of their factors and terms, and what they add to that of the slope.

    The grid is one-dimensional: blocks of queries run fastest, the last first (who sees most keys, if causal), then
    heads, then sequences.
    """
    at, head, first, rows, valid, positions, place = block_of_queries(  # pyright: ignore[reportGeneralTypeIssues]
        blocks - 1 - tl.program_id(0) % blocks, tl.program_id(0) // blocks, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, ROWS,
    )  # fmt: skip
    if first >= at.queries:
        return
    q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
    k_from = row_of(k, at.part, head // group, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    v_from = row_of(v, at.part, head // group, at.first_key, v_batch, v_head, v_row, DESCRIPTORS)
    dout_from = row_of(dout, at.part, head, at.first_query, dout_batch, dout_head, dout_row, DESCRIPTORS)
    columns_from = row_of(columns, at.part, head, at.first_key, columns_batch, columns_head, columns_row, False)
    key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
    key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
    q_tile = load_tile(q_from, first, valid, at.part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    if dout is not None:
        dout_tile = load_tile(
            dout_from, first, valid, at.part, head, dout_row, value_width, DESCRIPTORS, ROWS, VALUE_WIDTH
        )
    if columns is not None:
        to_columns_tile = load_rows(to_columns, place, column_count, valid, 0, column_count, 16)
    a = vector_or(scale, query_scale, place, valid, 1)
    u = vector_or(None, query_bias, place, valid, 1)
    slope = slope_of(slopes, head)
    table_from = table_of(table, head, radius)
    lse = 0.0
    if not SIGMOID:
        lse = vector(terms, place, valid, NO_KEY, 1)

    sight, walk = keys_seen(
        first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, False,
    )  # fmt: skip
    d_query = tl.zeros([ROWS, WIDTH], tl.float32)
    d_term = tl.zeros([ROWS], tl.float32)
    d_slope = tl.zeros([ROWS], tl.float32)
    for EDGE in tl.static_range(0, 2):
        # First the tiles of which all pairs are seen.
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
            p, t, bent = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, lse,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            dp = tl.zeros([ROWS, COLUMNS], tl.float32)
            if dout is not None:
                v_tile = load_tile(
                    v_from, start, exists, at.part, head // group, v_row, value_width, DESCRIPTORS, COLUMNS, VALUE_WIDTH
                )
                dp = dot_rows(dout_tile, v_tile, dp, PRECISION)
            if columns is not None:
                columns_tile = load_rows(columns_from, others, columns_row, exists, 0, column_count, 16)
                dp = dot_rows(to_columns_tile, columns_tile, dp, COLUMN_PRECISION)
            ds = score_gradients(
                dp, p, t, positions, places, terms, argmax, place, plane, valid,
                CONSTANT, LOG, SQUARE, DISTANCE, ABSOLUTE, MAX, SIGMOID, 1,
            )  # fmt: skip
            if slopes is not None:
                d_slope -= tl.sum(ds * tl.abs(positions - places).to(tl.float32), axis=1)
            if CAPPED:
                ds -= ds * bent * bent
            if query_bias is not None:
                d_term += tl.sum(ds, axis=1)
            if key_scale is not None:
                ds *= c
            d_query = dot(weights_as(ds, k_tile), k_tile, d_query, PRECISION)

    inner = tl.arange(0, WIDTH)
    if dquery_scale is not None:
        # The sum over ds c k, times q, is that over ds c <q, k>.
        tl.store(dquery_scale + place, tl.sum(q_tile.to(tl.float32) * d_query, axis=1) * bare_scale, mask=valid)
        d_query *= a
    d_query *= unscale
    tl.store(
        dq + place[:, None] * width + inner[None, :], d_query.to(dq.dtype.element_ty),
        mask=valid[:, None] & (inner < width)[None, :],
    )  # fmt: skip
    if dquery_bias is not None:
        tl.store(dquery_bias + place, d_term, mask=valid)
    if dslopes is not None:
        tl.store(dslopes + place, d_slope, mask=valid)
