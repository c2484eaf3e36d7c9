"""The Triton kernel of the forward pass: output and statistics, tile by tile."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.moments import in_parts, mean_and_variance, moments, moments_of_full, moved, sums
from lamina_kernels.attention.rows import block_of_queries, load_tile, row_of, slope_of, table_of, vector_or
from lamina_kernels.attention.score import LN2, LOG2E, UNSEEN, Scoring, scores_at
from lamina_kernels.attention.walk import first_of, keys_seen, part_of, place_at, place_of, turns, visible
from lamina_kernels.tiles.dot import INTERPRETED, dot, weights_as
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
    COLUMN_COUNT: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Attend from ROWS queries of one head to one part of their keys, and write output and statistics.

    Without values VALUE_WIDTH is 0, and there is no output.

    The grid is one-dimensional: blocks of queries run fastest (the last first, which see the most keys under a causal
    mask), then parts of the keys, heads, sequences, so that programs that run together read the same keys.

    Statistics are sums relative to the largest score so far, m: with z = s - m and p = exp z, the sums of p, p z, p²,
    and moments of the key under p, see `moments`.
    """
    split = tl.program_id(0) // blocks % splits
    at, head, first_row, rows, rows_valid, positions, written = block_of_queries(  # pyright: ignore[reportGeneralTypeIssues]
        blocks - 1 - tl.program_id(0) % blocks, tl.program_id(0) // blocks // splits, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, ROWS,
    )  # fmt: skip
    if first_row >= at.queries:
        return
    key_head = head // group
    q_from = row_of(q, at.part, head, at.first_query, q_batch, q_head, q_row, DESCRIPTORS)
    k_from = row_of(k, at.part, key_head, at.first_key, k_batch, k_head, k_row, DESCRIPTORS)
    v_from = row_of(v, at.part, key_head, at.first_key, v_batch, v_head, v_row, DESCRIPTORS)
    columns_from = row_of(columns, at.part, head, at.first_key, columns_batch, columns_head, columns_row, False)
    a = vector_or(scale, query_scale, written, rows_valid, 1)
    u = vector_or(None, query_bias, written, rows_valid, 1)
    key_scale_from = row_of(key_scale, at.part, head, at.first_key, key_scale_batch, key_scale_head, 1, False)
    key_bias_from = row_of(key_bias, at.part, head, at.first_key, key_bias_batch, key_bias_head, 1, False)
    slope = slope_of(slopes, head)
    table_from = table_of(table, head, radius)
    # Scores are bare products, or nats.
    to_nats = scale if PLAIN else 1.0
    to_log2 = scale * LOG2E if PLAIN else LOG2E

    # Whether there are moments; sums over the keys then come in parts.
    MOMENTS: tl.constexpr = TIER >= 2 and not SIGMOID
    # Where keys are on both sides of their query, tiles with both are edges as well.
    BOTH: tl.constexpr = MOMENTS and not ONE_SIDED
    sight, walk = keys_seen(
        first_row, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, BOTH,
    )  # fmt: skip
    walk = part_of(walk, split, splits, COLUMNS)

    q_tile = load_tile(q_from, first_row, rows_valid, at.part, head, q_row, width, DESCRIPTORS, ROWS, WIDTH)
    scoring = Scoring(
        q_tile, k_from, at.keys, positions, a, u, key_scale_from, key_bias_from, slope, table_from, radius, cap,
        at.part, key_head, k_row, width,
    )  # fmt: skip
    if VALUE_WIDTH:
        acc = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    m = tl.full([ROWS], UNSEEN, tl.float32)
    none = tl.zeros([ROWS, PARTS] if MOMENTS else [ROWS], tl.float32)
    l, energy, squares = none, none, none  # noqa: E741
    where = tl.full([ROWS], NOWHERE, tl.int32)
    # Keys count from the position of their query: moments, and the first ones of those ahead and behind.
    about = tl.zeros([ROWS], tl.float32)
    first, second = none, none
    ahead = tl.zeros([ROWS], tl.float32)
    behind = tl.zeros([ROWS], tl.float32)
    # Those of the keys behind alone, see below.
    m_behind, l_behind, energy_behind, about_behind, first_behind, second_behind = m, none, none, about, none, none
    means = tl.zeros([ROWS, COLUMN_COUNT], tl.float32)
    for EDGE in tl.static_range(0, 2):
        # First the tiles that every query sees whole; of those on both sides, the ones behind all queries.
        for AHEAD in tl.static_range(0, 2 if BOTH and not EDGE else 1):
            first_turn, last_turn = 0, turns(walk, EDGE, COLUMNS)
            if BOTH and not EDGE:
                turns_behind = (walk.cross_low - walk.full_low) // COLUMNS
                if AHEAD:
                    first_turn = turns_behind
                else:
                    last_turn = turns_behind
            for turn in range(first_turn, last_turn):
                tile = place_at(walk, turn, EDGE, COLUMNS)
                start = first_of(sight, tile, BLOCK)
                s = scores_at(scoring, start, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH)
                these = start + tl.arange(0, COLUMNS)
                if EDGE:
                    s = tl.where(
                        visible(sight, tile, rows[:, None], positions, these[None, :], LEFT, RIGHT, BLOCK), s, UNSEEN
                    )

                largest = tl.max(s, 1)
                if TIER >= 2:
                    rises = largest > m
                    if EDGE:
                        rises |= (largest == m) & (start < where) & (m > UNSEEN)
                    where = tl.where(rises, start, where)
                m_new = tl.maximum(m, largest)
                if SIGMOID:
                    p = 1 / (1 + tl.exp2(-s * to_log2))
                    if TIER >= 2:
                        squares += tl.sum(p * p, 1)
                else:
                    z = under(s, m_new[:, None], to_log2)
                    p = tl.exp2(z)
                    rescale = fall(m, m_new, to_log2)
                    lower = (m - m_new) * to_log2
                    if VALUE_WIDTH:
                        acc *= rescale[:, None]
                    means *= rescale[:, None]
                    if MOMENTS:
                        row_rescale, rescale, lower = rescale, rescale[:, None], lower[:, None]
                        p_in_parts = in_parts(p, PARTS)
                        # Where the tile starts.
                        begin = (start - at.shift - rows).to(tl.float32)
                        if EDGE:
                            # A window may leave few keys of a tile.
                            side = p * (begin[:, None] + tl.arange(0, COLUMNS).to(tl.float32)[None, :])
                            if BOTH:
                                tile_ahead = tl.sum(tl.maximum(side, 0.0), 1)
                                tile_behind = -tl.sum(tl.minimum(side, 0.0), 1)
                                moment = tile_ahead - tile_behind
                            else:
                                moment = tl.sum(side, 1)
                            here = moment / tl.maximum(tl.sum(p, 1), 1e-37)
                        else:
                            here = begin + (COLUMNS - PARTS) / 2
                        about_new = tl.where(rises, here, about)
                        first, second = moved(l, first, second, about_new - about)
                        about = about_new
                        if EDGE:
                            weights, tile_first, tile_second = moments(p_in_parts, begin - about)
                        else:
                            weights, tile_first, tile_second = moments_of_full(p_in_parts)
                        if BOTH and EDGE:
                            ahead, behind = row_rescale * ahead + tile_ahead, row_rescale * behind + tile_behind
                        if not EDGE:
                            tile_first, tile_second = moved(weights, tile_first, tile_second, about - here)
                        first, second = rescale * first + tile_first, rescale * second + tile_second
                        squares = rescale * rescale * squares + sums(p * p, PARTS)
                    before = l * rescale
                    if TIER >= 1:
                        energy = rescale * energy + lower * before + sums(p * z, PARTS if MOMENTS else 0)
                    l = before + (weights if MOMENTS else tl.sum(p, 1))  # noqa: E741
                m = m_new
                if TIER >= 3:
                    functions = load_rows(
                        columns_from, these, columns_row, these < at.keys, 0, column_count, COLUMN_COUNT
                    )
                    means = dot(p, functions, means, "bf16x3" if PRECISION == "half" else PRECISION)
                if VALUE_WIDTH:
                    v_tile = load_tile(
                        v_from, start, these < at.keys, at.part, key_head, v_row, value_width,
                        DESCRIPTORS, COLUMNS, VALUE_WIDTH,
                    )  # fmt: skip
                    acc = dot(weights_as(p, v_tile), v_tile, acc, PRECISION)
            if BOTH and not EDGE:
                # What is summed so far is on one side of all queries.
                moment = tl.sum(first + (about[:, None] + tl.arange(0, PARTS)[None, :]) * l, 1)
                if AHEAD:
                    ahead = tl.maximum(moment, 0.0)
                    first_behind, second_behind = moved(l_behind, first_behind, second_behind, about - about_behind)
                    fallen = fall(m_behind, m, to_log2)
                    behind, fallen = behind * fallen, fallen[:, None]
                    before, lower = l_behind * fallen, ((m_behind - m) * to_log2)[:, None]
                    energy += fallen * energy_behind + lower * before
                    l += before  # noqa: E741
                    first, second = first + fallen * first_behind, second + fallen * second_behind
                else:
                    behind = tl.maximum(-moment, 0.0)
                    m_behind, l_behind, energy_behind, about_behind = m, l, energy, about
                    first_behind, second_behind = first, second
                    l, energy, first, second = none, none, none, none  # noqa: E741

    if MOMENTS:
        key_mean, variance = mean_and_variance(l, first, second)
        key_mean += about
        l, energy, squares = tl.sum(l, 1), tl.sum(energy, 1), tl.sum(squares, 1)  # noqa: E741
    # A broken row is not an unseen one.
    unseen = (m == UNSEEN) & (l == l)
    portion = tl.where(unseen, 0.0, 1.0)
    if not SIGMOID:
        portion = tl.where(unseen, 0.0, 1 / tl.where(unseen, 1.0, l))
    # Where a row of this part is written, in rows, and where the next number of a row.
    here = split.to(INDEX) * plane + written
    plane = splits.to(INDEX) * plane
    if VALUE_WIDTH:
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
        start = tl.min(where, 0)
        while start < NOWHERE:
            tile = place_of(sight, start, BLOCK)
            these = (start + tl.arange(0, COLUMNS))[None, :]
            s = scores_at(scoring, start, PLAIN, CAPPED, PRECISION, DESCRIPTORS, COLUMNS, WIDTH)
            s = tl.where(visible(sight, tile, rows[:, None], positions, these, LEFT, RIGHT, BLOCK), s, UNSEEN)
            best = tl.where(where == start, start + tl.argmax(s, 1), best)
            where = tl.where(where == start, NOWHERE, where)
            start = tl.min(where, 0)
        tl.store(argmax + here, best.to(tl.int64), mask=rows_valid)
    if MOMENTS:
        tl.store(number + 5 * plane, tl.where(unseen, 0.0, -key_mean), mask=rows_valid)
        tl.store(number + 6 * plane, tl.where(unseen, 0.0, variance), mask=rows_valid)
        far_mean = -key_mean
        if BOTH:
            # The mean square of d is that of |d|.
            ahead, behind = ahead * portion, behind * portion
            far_mean, variance = ahead + behind, variance - 4 * ahead * behind
            variance = tl.where(variance < 0, 0.0, variance)
        tl.store(number + 7 * plane, tl.where(unseen, 0.0, far_mean), mask=rows_valid)
        tl.store(number + 8 * plane, tl.where(unseen, 0.0, variance), mask=rows_valid)
    if TIER >= 3:
        functions = tl.arange(0, COLUMN_COUNT)
        tl.store(
            column_sums + here[:, None] * column_count + functions[None, :],
            means * portion[:, None],
            mask=rows_valid[:, None] & (functions < column_count)[None, :],
        )
