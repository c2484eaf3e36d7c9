"""The Triton kernels of the gradients of `attend`: one for the queries, one for the keys and values, no atomics.

Both compute the weights again, from the log-sum-exp of each query, and the gradients of the scores by the formulas of
`gradients`. A program of the first has a block of queries and meets keys; one of the second has a block of keys and
meets the queries of all heads that share them, on tiles keys by queries.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.score import (
    UNSEEN,
    key_range,
    load_tile,
    query_range,
    scores,
    seen,
    seen_of_block,
    sequence,
    vector,
    weights_as,
)
from lamina_kernels.tiles.dot import dot, dot_rows
from lamina_kernels.tiles.load import INDEX, load_rows

# What the log-sum-exp of a query is taken for that sees no key, or does not exist: its weights are 0.
NO_KEY = tl.constexpr(1e30)


@triton.jit(do_not_specialize=["rows"])
def delta_kernel(
    out, dout, delta,  # [B, H, Nq, Dv], [B, H, Nq, Dv], [B, H, Nq] float32
    heads, rows, width,
    out_batch, out_head, out_row, dout_batch, dout_head, dout_row,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write <out, dout> of ROWS queries of one head."""
    blocks = tl.cdiv(rows, ROWS)
    place = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    pair = (tl.program_id(0) // blocks).to(INDEX)
    batch, head = pair // heads, pair % heads
    valid = place < rows
    a = load_rows(out + batch * out_batch + head * out_head, place, out_row, valid, 0, width, WIDTH)
    b = load_rows(dout + batch * dout_batch + head * dout_head, place, dout_row, valid, 0, width, WIDTH)
    sums = tl.sum(a.to(tl.float32) * b.to(tl.float32), axis=1)
    tl.store(delta + pair * rows + place, sums, mask=valid)


@triton.jit
def weights(
    products, positions, columns, inside, a, c, u, w, slope, table, radius, cap, lse,
    EDGE: tl.constexpr, SIGMOID: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Return the weights, their logarithms of base 2, and tanh(s / softcap), of a tile of products."""
    s, bent = scores(  # pyright: ignore[reportGeneralTypeIssues]
        products, positions, columns, a, c, u, w, slope, table, radius, cap, CAPPED
    )
    if EDGE:
        s = tl.where(inside, s, UNSEEN)
    if SIGMOID:
        return 1.0 / (1.0 + tl.exp2(-s)), s, bent
    else:
        t = s - lse
        return tl.exp2(t), t, bent


@triton.jit
def _score_gradients(
    dp, p, t, positions, columns, terms, argmax, place, plane, valid,
    CONSTANT: tl.constexpr, LOG: tl.constexpr, SQUARE: tl.constexpr, DISTANCE: tl.constexpr, ABSOLUTE: tl.constexpr,
    MAX: tl.constexpr, SIGMOID: tl.constexpr, AXIS: tl.constexpr,
):  # fmt: skip
    """Return the gradients of a tile of scores, see `gradients`; capitals are planes of `terms`, -1 for none."""
    if CONSTANT >= 0:
        dp += vector(terms + CONSTANT * plane, place, valid, 0.0, AXIS)
    if LOG >= 0:
        dp += t * vector(terms + LOG * plane, place, valid, 0.0, AXIS)
    if SQUARE >= 0:
        dp += p * vector(terms + SQUARE * plane, place, valid, 0.0, AXIS)
    if DISTANCE >= 0:
        x = (positions - columns).to(tl.float32) - vector(terms + DISTANCE * plane, place, valid, 0.0, AXIS)
        to_mean = vector(terms + (DISTANCE + 1) * plane, place, valid, 0.0, AXIS)
        to_variance = vector(terms + (DISTANCE + 2) * plane, place, valid, 0.0, AXIS)
        dp += x * (to_mean + to_variance * x)
    if ABSOLUTE >= 0:
        y = tl.abs(positions - columns).to(tl.float32) - vector(terms + ABSOLUTE * plane, place, valid, 0.0, AXIS)
        to_mean_abs = vector(terms + (ABSOLUTE + 1) * plane, place, valid, 0.0, AXIS)
        to_variance_abs = vector(terms + (ABSOLUTE + 2) * plane, place, valid, 0.0, AXIS)
        dp += y * (to_mean_abs + to_variance_abs * y)
    ds = p * dp
    if SIGMOID:
        ds -= ds * p
    if MAX >= 0:
        key = vector(argmax, place, valid, -1, AXIS)
        ds += tl.where(columns == key, vector(terms + MAX * plane, place, valid, 0.0, AXIS), 0.0)
    return ds


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
    q_from, k_from, v_from, dout_from = q, k, v, dout
    if not DESCRIPTORS:
        q_from = q + batch * q_batch + head * q_head + first_query.to(INDEX) * q_row
        k_from = k + batch * k_batch + head // group * k_head + key_place * k_row
        v_from = v + batch * v_batch + head // group * v_head + key_place * v_row
        if dout is not None:
            dout_from = dout + batch * dout_batch + head * dout_head + first_query.to(INDEX) * dout_row
    q_tile = load_tile(q_from, block * ROWS, valid, part, head32, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    if dout is not None:
        dout_tile = load_tile(
            dout_from, block * ROWS, valid, part, head32, dout_row, value_width, DESCRIPTORS, ROWS, VALUE_WIDTH
        )
    if columns is not None:
        to_columns_tile = load_rows(to_columns, place, column_count, valid, 0, column_count, 16)
        columns_base = columns + batch * columns_batch + head * columns_head + key_place * columns_row
    a, u, slope, table_from, lse = scale, None, None, None, 0.0
    if query_scale is not None:
        a = vector(query_scale, place, valid, 0.0, 1)
    if query_bias is not None:
        u = vector(query_bias, place, valid, 0.0, 1)
    if slopes is not None:
        slope = tl.load(slopes + head)
    if table is not None:
        table_from = table + head * (2 * radius + 1)
    if not SIGMOID:
        lse = vector(terms, place, valid, NO_KEY, 1)

    low, full_low, full_high, high = key_range(
        block * ROWS + shift, tl.minimum(block * ROWS + ROWS, n_queries) - 1 + shift, n_keys,
        left, right, LEFT, RIGHT, COLUMNS,
    )  # fmt: skip
    if BLOCK:
        # Tiles are counted along the list of blocks.
        starts = mask_starts + batch * mask_batch + head * mask_head + block * ROWS // BLOCK
        low = tl.load(starts) * (BLOCK // COLUMNS)
        high = tl.load(starts + 1) * (BLOCK // COLUMNS)

    d_query = tl.zeros([ROWS, WIDTH], tl.float32)
    d_term = tl.zeros([ROWS], tl.float32)
    d_slope = tl.zeros([ROWS], tl.float32)
    for EDGE in tl.static_range(0, 2):
        # First the tiles of which all pairs are seen; a block mask mixes them with the others.
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
            p, t, bent = weights(
                products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, lse,
                EDGE, SIGMOID, CAPPED,
            )  # fmt: skip
            dp = tl.zeros([ROWS, COLUMNS], tl.float32)
            if dout is not None:
                v_tile = load_tile(
                    v_from, start, exists, part, head32 // group, v_row, value_width, DESCRIPTORS, COLUMNS, VALUE_WIDTH
                )
                dp = dot_rows(dout_tile, v_tile, dp, PRECISION)
            if columns is not None:
                columns_tile = load_rows(columns_base, others, columns_row, exists, 0, column_count, 16)
                dp = dot_rows(to_columns_tile, columns_tile, dp, COLUMN_PRECISION)
            ds = _score_gradients(
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
    block = tl.program_id(0) % blocks
    key_heads = heads // group
    key_head32 = tl.program_id(0) // blocks % key_heads
    key_head = key_head32.to(INDEX)
    index = tl.program_id(0) // blocks // key_heads
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
    k_from, v_from = k, v
    if not DESCRIPTORS:
        k_from = k + batch * k_batch + key_head * k_head + first_key.to(INDEX) * k_row
        v_from = v + batch * v_batch + key_head * v_head + first_key.to(INDEX) * v_row
    k_tile = load_tile(k_from, block * COLUMNS, exists, part, key_head32, k_row, width, DESCRIPTORS, COLUMNS, WIDTH)
    if dout is not None:
        v_tile = load_tile(
            v_from, block * COLUMNS, exists, part, key_head32, v_row, value_width, DESCRIPTORS, COLUMNS, VALUE_WIDTH
        )
    low, full_low, full_high, high = query_range(
        block * COLUMNS, tl.minimum(block * COLUMNS + COLUMNS, n_keys) - 1, shift, n_queries,
        left, right, LEFT, RIGHT, ROWS,
    )  # fmt: skip

    d_key = tl.zeros([COLUMNS, WIDTH], tl.float32)
    d_value = tl.zeros([COLUMNS, VALUE_WIDTH], tl.float32)
    for member in range(group):
        head32 = key_head32 * group + member
        head = head32.to(INDEX)
        q_from, dout_from = q, dout
        if not DESCRIPTORS:
            q_from = q + batch * q_batch + head * q_head + first_query.to(INDEX) * q_row
            if dout is not None:
                dout_from = dout + batch * dout_batch + head * dout_head + first_query.to(INDEX) * dout_row
        c, w, slope, table_from = None, None, None, None
        if key_scale is not None:
            c = vector(key_scale + batch * key_scale_batch + head * key_scale_head, key_place, exists, 0.0, 1)
        if key_bias is not None:
            w = vector(key_bias + batch * key_bias_batch + head * key_bias_head, key_place, exists, 0.0, 1)
        if slopes is not None:
            slope = tl.load(slopes + head)
        if table is not None:
            table_from = table + head * (2 * radius + 1)
        if columns is not None:
            columns_from = columns + batch * columns_batch + head * columns_head
            columns_tile = load_rows(columns_from, key_place, columns_row, exists, 0, column_count, 16)
        if BLOCK:
            starts = mask_starts + batch * mask_batch + head * mask_head + block * COLUMNS // BLOCK
            low = tl.load(starts) * (BLOCK // ROWS)
            high = tl.load(starts + 1) * (BLOCK // ROWS)
        d_term = tl.zeros([COLUMNS], tl.float32)
        d_scale = tl.zeros([COLUMNS], tl.float32)
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
                a, u, lse = scale, None, 0.0
                if query_scale is not None:
                    a = vector(query_scale, place, valid, 0.0, 0)
                if query_bias is not None:
                    u = vector(query_bias, place, valid, 0.0, 0)
                if not SIGMOID:
                    lse = vector(terms, place, valid, NO_KEY, 0)
                inside = True
                if EDGE:
                    inside = seen(positions, places, n_keys, left, right, LEFT, RIGHT)
                    if BLOCK:
                        partial = tl.load(mask_partial + entry)
                        inside = inside & seen_of_block(mask_bits, partial, rows[None, :], places, BLOCK)
                p, t, bent = weights(
                    products, positions, places, inside, a, c, u, w, slope, table_from, radius, cap, lse,
                EDGE, SIGMOID, CAPPED,
                )  # fmt: skip
                dp = tl.zeros([COLUMNS, ROWS], tl.float32)
                if dout is not None:
                    dout_tile = load_tile(
                        dout_from, start, valid, part, head32, dout_row, value_width, DESCRIPTORS, ROWS, VALUE_WIDTH
                    )
                    d_value = dot(weights_as(p, dout_tile), dout_tile, d_value, PRECISION)
                    dp = dot_rows(v_tile, dout_tile, dp, PRECISION)
                if columns is not None:
                    to_columns_tile = load_rows(to_columns, place, column_count, valid, 0, column_count, 16)
                    dp = dot_rows(columns_tile, to_columns_tile, dp, COLUMN_PRECISION)
                ds = _score_gradients(
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
        written = (batch * heads + head) * keys + key_place
        if dkey_bias is not None:
            tl.store(dkey_bias + written, d_term, mask=exists)
        if dkey_scale is not None:
            tl.store(dkey_scale + written, d_scale * unscale, mask=exists)

    written = (batch * key_heads + key_head) * keys + key_place
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
