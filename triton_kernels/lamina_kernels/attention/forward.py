"""The Triton kernel of the forward pass: output and statistics, tile by tile."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.score import (
    LN2,
    LOG2E,
    UNSEEN,
    key_range,
    load_tile,
    scores_of_keys,
    seen,
    seen_of_block,
    sequence,
    weights_as,
)
from lamina_kernels.tiles.dot import INTERPRETED, dot
from lamina_kernels.tiles.load import INDEX, load_rows

# No tile, behind all others.
NOWHERE = tl.constexpr(2**31 - 1)
MINUS_INFINITY = tl.constexpr(float("-inf"))


@triton.jit
def under(s, m, to_log2):
    """Return s - m as an exponent of 2: one fused instruction, whose product is not rounded."""
    if INTERPRETED:
        return (s - m) * to_log2
    else:
        return s * to_log2 - m * to_log2


@triton.jit
def mean_and_deviation(p, x, weight):
    """Return the means of the rows of x by weights p, whose sums are `weight`, and their squared deviations."""
    mean = tl.sum(p * x, 1) / tl.maximum(weight, 1e-37)
    apart = x - mean[:, None]
    return mean, tl.sum(p * apart * apart, 1)


@triton.jit
def fall(m, larger, to_log2):
    """Return what sums relative to m are multiplied with, to be relative to a larger number."""
    return tl.exp2((m - larger) * to_log2)


@triton.jit(
    do_not_specialize=["heads", "group", "queries", "keys", "left", "right", "radius", "splits", "blocks", "plane"]
)
def attention_forward_kernel(
    q, k, v,  # [B, H, Nq, D], [B, Hk, Nk, D], [B, Hk, Nk, Dv]: contiguous inside, or descriptors of such
    query_scale, query_bias,  # [B, H, Nq] float32, or None
    key_scale, key_bias,  # [B, H, Nk] float32, contiguous inside, or None
    slopes, table,  # [H], [H, 2 radius + 1] float32, or None
    cu_seqlens_q, cu_seqlens_k,  # [S + 1] int32, or None
    mask_starts, mask_blocks, mask_partial, mask_bits,  # see `BlockMask`; or None
    columns,  # [B or 1, H or 1, Nk, C] float32, contiguous inside; used from tier 3 on
    out,  # [splits, B, H, Nq, Dv]
    statistics,  # [planes, splits, B, H, Nq] float32
    argmax,  # [splits, B, H, Nq] int64; used from tier 2 on
    column_sums,  # [splits, B, H, Nq, C] float32; used from tier 3 on
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    key_scale_batch, key_scale_head, key_bias_batch, key_bias_head, mask_batch, mask_head,
    columns_batch, columns_head, columns_row,
    heads, group, queries, keys, width, value_width, column_count, blocks, splits, plane,
    scale, cap, radius, left, right,
    TIER: tl.constexpr, SIGMOID: tl.constexpr, PLAIN: tl.constexpr, CAPPED: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, ONE_SIDED: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr,
    COLUMN_COUNT: tl.constexpr,
):  # fmt: skip
    """Attend from ROWS queries of one head to one part of their keys, and write output and statistics.

    The grid is one-dimensional: blocks of queries run fastest (the last first, which see the most keys under a causal
    mask), then parts of the keys, heads, sequences, so that programs that run together read the same keys.

    Statistics are sums relative to the largest score so far, m: with z = s - m and p = exp z, the sums of p, p z, p²,
    and mean and squared deviation of the key under p, which parts add to without cancellation.
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

    # Packed sequences are parts of one.
    part = batch if cu_seqlens_q is None else batch * 0
    part64, head64, key_head64 = part.to(INDEX), head.to(INDEX), key_head.to(INDEX)
    if DESCRIPTORS:
        q_from, k_from, v_from = q, k, v
    else:
        q_from = q + part64 * q_batch + head64 * q_head + first_query.to(INDEX) * q_row
        k_from = k + part64 * k_batch + key_head64 * k_head + first_key.to(INDEX) * k_row
        v_from = v + part64 * v_batch + key_head64 * v_head + first_key.to(INDEX) * v_row
    # The first row of what is written.
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
    columns_from = columns
    if TIER >= 3:
        columns_from = columns + part64 * columns_batch + head64 * columns_head + first_key.to(INDEX) * columns_row
    if slopes is not None:
        slope = tl.load(slopes + head)
    if table is not None:
        table_from = table + head64 * (2 * radius + 1)
    # Scores are bare products, or nats.
    to_nats = scale if PLAIN else 1.0
    to_log2 = scale * LOG2E if PLAIN else LOG2E

    position = block * ROWS + shift
    low, full_low, full_high, high = key_range(
        position, tl.minimum(block * ROWS + ROWS, queries_here) - 1 + shift,
        keys_here, left, right, LEFT, RIGHT, COLUMNS,
    )  # fmt: skip
    # Where keys are on both sides of their query, tiles with both are edges as well.
    BOTH: tl.constexpr = TIER >= 2 and not SIGMOID and not ONE_SIDED
    if BLOCK:
        # Tiles are counted along the list of blocks.
        mask_from = mask_starts + part64 * mask_batch + head64 * mask_head + block * ROWS // BLOCK
        low = tl.load(mask_from) * (BLOCK // COLUMNS)
        high = tl.load(mask_from + 1) * (BLOCK // COLUMNS)
        share = tl.cdiv(high - low, splits)
    else:
        share = tl.cdiv((high - low) // COLUMNS, splits) * COLUMNS
    low = tl.minimum(low + split * share, high)
    high = tl.minimum(low + share, high)
    if not BLOCK:
        full_low = tl.minimum(tl.maximum(full_low, low), high)
        full_high = tl.minimum(tl.maximum(full_high, full_low), high)
    cross_low, cross_high = full_high, full_high
    if BOTH and not BLOCK:
        cross_low = tl.minimum(tl.maximum(position // COLUMNS * COLUMNS, full_low), full_high)
        cross_high = tl.cdiv(position + ROWS, COLUMNS) * COLUMNS
        cross_high = tl.minimum(tl.maximum(cross_high, cross_low), full_high)

    q_tile = load_tile(q_from, block * ROWS, rows_valid, part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    eights = (8 * tl.arange(0, COLUMNS // 8) - COLUMNS // 2).to(tl.float32)
    ones = tl.arange(0, 8).to(tl.float32)
    acc = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    m = tl.full([ROWS], UNSEEN, tl.float32)
    l = tl.zeros([ROWS], tl.float32)  # noqa: E741
    energy = tl.zeros([ROWS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    where = tl.full([ROWS], NOWHERE, tl.int32)
    # Mean and squared deviation of the key, counted from the position of the query, and of its absolute value.
    key_mean = tl.zeros([ROWS], tl.float32)
    deviation = tl.zeros([ROWS], tl.float32)
    far_mean = tl.zeros([ROWS], tl.float32)
    far_deviation = tl.zeros([ROWS], tl.float32)
    means = tl.zeros([ROWS, COLUMN_COUNT], tl.float32)
    for EDGE in tl.static_range(0, 2):
        # First the tiles that every query sees whole; a block mask mixes them with the others.
        if BLOCK:
            count = (high - low) * EDGE
        elif EDGE:
            count = (full_low - low + cross_high - cross_low + high - full_high) // COLUMNS
        else:
            count = (cross_low - full_low + full_high - cross_high) // COLUMNS
        for index in range(count):
            if BLOCK:
                tile = low + index
                entry = tile // (BLOCK // COLUMNS)
                start = tl.load(mask_blocks + entry) * BLOCK + tile % (BLOCK // COLUMNS) * COLUMNS
            elif EDGE:
                start = low + index * COLUMNS
                start += tl.where(start < full_low, 0, cross_low - full_low)
                start += tl.where(start < cross_high, 0, full_high - cross_high)
                tile = start
            else:
                start = full_low + index * COLUMNS
                start += tl.where(start < cross_low, 0, cross_high - cross_low)
                tile = start
            s = scores_of_keys(
                q_tile, k_from, start, keys_here, positions,
                a, u, key_scale_from, key_bias_from, slope, table_from, radius, cap,
                part, key_head, k_row, width, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH,
            )  # fmt: skip
            these = start + tl.arange(0, COLUMNS)
            if EDGE:
                if BLOCK:
                    partial = tl.load(mask_partial + entry)
                    if (partial >= 0) | (start < full_low) | (start >= full_high):
                        inside = seen(positions, these[None, :], keys_here, left, right, LEFT, RIGHT)
                        inside &= seen_of_block(mask_bits, partial, rows[:, None], these[None, :], BLOCK)
                        s = tl.where(inside, s, UNSEEN)
                else:
                    s = tl.where(seen(positions, these[None, :], keys_here, left, right, LEFT, RIGHT), s, UNSEEN)

            largest = tl.max(s, 1)
            if TIER >= 2:
                first = (largest > m) | ((largest == m) & (tile < where) & (m > UNSEEN))
                where = tl.where(first, tile, where)
            m_new = tl.maximum(m, largest)
            if SIGMOID:
                p = 1 / (1 + tl.exp2(-s * to_log2))
            else:
                z = under(s, m_new[:, None], to_log2)
                p = tl.exp2(z)
                rescale = fall(m, m_new, to_log2)
                acc *= rescale[:, None]
                if TIER >= 2:
                    # Keys are 8 a + b: threads hold every a of few b, which are then numbers of the code.
                    by_eight = tl.reshape(p, [ROWS, COLUMNS // 8, 8])
                    weights = tl.sum(by_eight, 1)
                    weight = tl.sum(weights, 1)
                else:
                    weight = tl.sum(p, 1)
                before = l * rescale
                if TIER >= 1:
                    energy = rescale * energy + (m - m_new) * to_log2 * before + tl.sum(p * z, 1)
                l = before + weight  # noqa: E741
                squares *= rescale * rescale
                means *= rescale[:, None]
            m = m_new
            if TIER >= 2:
                squares += tl.sum(p * p, 1)
            if TIER >= 2 and not SIGMOID:
                if EDGE:
                    # A window may leave few keys of a tile: their own distances, not differences of large sums.
                    apart = (these[None, :] - positions).to(tl.float32)
                    place, spread = mean_and_deviation(p, apart, weight)
                    if BOTH:
                        far, far_spread = mean_and_deviation(p, tl.abs(apart), weight)
                else:
                    first_moments = tl.sum(by_eight * eights[None, :, None], 1)
                    moment = tl.sum(first_moments + weights * ones[None, :], 1)
                    second_moments = tl.sum(by_eight * (eights * eights)[None, :, None], 1)
                    second_moments += (2 * first_moments + weights * ones[None, :]) * ones[None, :]
                    offset = moment / tl.maximum(weight, 1e-37)
                    spread = tl.sum(second_moments, 1) - moment * offset
                    place = (start + COLUMNS // 2 - shift - rows).to(tl.float32) + offset
                    # All keys of the tile are on one side of all queries.
                    far, far_spread = tl.abs(place), spread
                portion = weight / l
                step = place - key_mean
                key_mean += step * portion
                deviation = rescale * deviation + spread + step * step * portion * before
                if BOTH:
                    step = far - far_mean
                    far_mean += step * portion
                    far_deviation = rescale * far_deviation + far_spread + step * step * portion * before
            if TIER >= 3:
                functions = load_rows(
                    columns_from, these, columns_row, these < keys_here, 0, column_count, COLUMN_COUNT
                )
                means = dot(p, functions, means, "bf16x3" if PRECISION == "half" else PRECISION)
            v_tile = load_tile(
                v_from, start, these < keys_here, part, key_head, v_row, value_width,
                DESCRIPTORS, COLUMNS, VALUE_WIDTH,
            )  # fmt: skip
            acc = dot(weights_as(p, v_tile), v_tile, acc, PRECISION)

    # A broken row is not an unseen one.
    unseen = (m == UNSEEN) & (l == l)
    portion = tl.where(unseen, 0.0, 1.0)
    if not SIGMOID:
        portion = tl.where(unseen, 0.0, 1 / tl.where(unseen, 1.0, l))
    # Where a row of this part is written, in rows, and where the next number of a row.
    here = split.to(INDEX) * plane + written + rows
    plane = splits.to(INDEX) * plane
    value_columns = tl.arange(0, VALUE_WIDTH)
    tl.store(
        out + here[:, None] * value_width + value_columns[None, :],
        (acc * portion[:, None]).to(out.dtype.element_ty),
        mask=rows_valid[:, None] & (value_columns < value_width)[None, :],
    )
    number = statistics + here
    tl.store(number + plane, tl.where(unseen, MINUS_INFINITY, m * to_nats), mask=rows_valid)
    if not SIGMOID:
        tl.store(number, tl.where(unseen, MINUS_INFINITY, m * to_nats + tl.log(l)), mask=rows_valid)
    if TIER >= 1 and not SIGMOID:
        # The mean of z, in nats.
        below = energy * portion * LN2
        entropy = tl.log(l) - below
        entropy = tl.where(entropy < 0, 0.0, entropy)
        tl.store(number + 2 * plane, tl.where(unseen, 0.0, entropy), mask=rows_valid)
        tl.store(number + 3 * plane, tl.where(unseen, 0.0, m * to_nats + below), mask=rows_valid)
    if TIER >= 2:
        tl.store(number + 4 * plane, squares * portion * portion, mask=rows_valid)
        # Of the tiles in which the largest score lies, each is scored once more.
        best = tl.full([ROWS], -1, tl.int32)
        where = tl.where(unseen, NOWHERE, where)
        tile = tl.min(where, 0)
        while tile < NOWHERE:
            if BLOCK:
                entry = tile // (BLOCK // COLUMNS)
                start = tl.load(mask_blocks + entry) * BLOCK + tile % (BLOCK // COLUMNS) * COLUMNS
            else:
                start = tile
            s = scores_of_keys(
                q_tile, k_from, start, keys_here, positions,
                a, u, key_scale_from, key_bias_from, slope, table_from, radius, cap,
                part, key_head, k_row, width, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH,
            )  # fmt: skip
            these = (start + tl.arange(0, COLUMNS))[None, :]
            inside = seen(positions, these, keys_here, left, right, LEFT, RIGHT)
            if BLOCK:
                inside &= seen_of_block(mask_bits, tl.load(mask_partial + entry), rows[:, None], these, BLOCK)
            s = tl.where(inside, s, UNSEEN)
            best = tl.where(where == tile, start + tl.argmax(s, 1), best)
            where = tl.where(where == tile, NOWHERE, where)
            tile = tl.min(where, 0)
        tl.store(argmax + here, best.to(tl.int64), mask=rows_valid)
    if TIER >= 2 and not SIGMOID:
        mean, variance = -key_mean, deviation * portion
        variance = tl.where(variance < 0, 0.0, variance)
        tl.store(number + 5 * plane, tl.where(unseen, 0.0, mean), mask=rows_valid)
        tl.store(number + 6 * plane, tl.where(unseen, 0.0, variance), mask=rows_valid)
        if BOTH:
            mean, variance = far_mean, far_deviation * portion
            variance = tl.where(variance < 0, 0.0, variance)
        tl.store(number + 7 * plane, tl.where(unseen, 0.0, mean), mask=rows_valid)
        tl.store(number + 8 * plane, tl.where(unseen, 0.0, variance), mask=rows_valid)
    if TIER >= 3:
        functions = tl.arange(0, COLUMN_COUNT)
        tl.store(
            column_sums + here[:, None] * column_count + functions[None, :],
            means * portion[:, None],
            mask=rows_valid[:, None] & (functions < column_count)[None, :],
        )
