"""The Triton kernels of the gradients of a divergence by one of its two models: by its queries, and by its keys.

Both compute the weights of both models again, from their log-sum-exps; no atomics. A program of the first has a block
of queries and meets keys; one of the second has a block of keys of its model and meets the queries of all heads that
share them there, on tiles keys by queries.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.divergence_forward import NEAR, above_middle, sign
from lamina_kernels.attention.divergence_score import (
    factors_of_keys,
    keys_of,
    queries_of,
    scoring_of,
    terms_of_keys,
)
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
from lamina_kernels.attention.score import UNSEEN, scores, scores_at
from lamina_kernels.attention.walk import first_of, keys_seen, place_at, queries_seeing, turns, visible
from lamina_kernels.attention.weights import NO_KEY
from lamina_kernels.tiles.dot import dot, dot_rows, weights_as
from lamina_kernels.tiles.load import INDEX


@triton.jit
def by_score(s, other_s, terms, plane, place, valid, KIND: tl.constexpr, FIRST: tl.constexpr, AXIS: tl.constexpr):
    """Return the gradients of a tile of scores.

    Args:
        s: Scores of the model that gradients are of, times log2 e.
        other_s: Those of the other model.
        terms: See `divergence_launch.planes`.
        plane: How far its planes are apart.
        place: Where the queries stand in a plane.
        valid: Whether they exist.
        KIND: "kl", "js" or "tv".
        FIRST: Whether the gradients are of the first model.
        AXIS: 1 for a tile of queries by keys, 0 for one of keys by queries.
    """
    plane = plane.to(INDEX)
    lse, other_lse = vector(terms, place, valid, NO_KEY, AXIS), vector(terms + plane, place, valid, NO_KEY, AXIS)
    gain = vector(terms + 2 * plane, place, valid, 0.0, AXIS)
    constant = vector(terms + 3 * plane, place, valid, 0.0, AXIS)
    t, other_t = s - lse, other_s - other_lse
    apart, p = t - other_t, tl.exp2(t)
    if KIND == "kl":
        if FIRST:
            return p * (apart * gain + constant)
        else:
            return p * constant - tl.exp2(other_t) * gain
    elif KIND == "js":
        return p * ((above_middle(tl.exp2(-tl.abs(apart))) + tl.minimum(apart, 0.0)) * gain + constant)
    else:
        return p * (sign(apart, (tl.abs(lse) + tl.abs(other_lse)) * NEAR) * gain + constant)


@triton.jit(do_not_specialize=["heads", "queries", "keys", "blocks", "plane", "left", "right"])
def divergence_queries_kernel(
    q, k, other_q, other_k,  # [B, H, Nq, D], [B, Hk, Nk, D]: rows contiguous inside, or descriptors of such
    model, other,  # see `Model`: that of the gradients, and the other one
    terms,  # [4, B, H, Nq] float32: see `divergence_launch.planes`
    dq, dquery_scale, dquery_bias, dslopes,  # [B, H, Nq, D], [B, H, Nq] float32 the others, or None
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    heads, queries, keys, blocks, plane, bare_scale, unscale, left, right,
    KIND: tl.constexpr, FIRST: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, OTHER_PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradients of ROWS queries, of their factors and terms, and what they add to that of the slope.

    The grid is that of the forward pass.
    """
    at, head, first, rows, valid, positions, place = block_of_queries(  # pyright: ignore[reportGeneralTypeIssues]
        blocks - 1 - tl.program_id(0) % blocks, tl.program_id(0) // blocks, heads,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, ROWS,
    )  # fmt: skip
    if first >= at.queries:
        return
    ours = scoring_of(model, q, k, first, valid, positions, place, at, head, DESCRIPTORS, ROWS, WIDTH)
    theirs = scoring_of(
        other, other_q, other_k, first, valid, positions, place, at, head, DESCRIPTORS, ROWS, OTHER_WIDTH
    )
    sight, walk = keys_seen(
        first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
        LEFT, RIGHT, BLOCK, ROWS, COLUMNS, False,
    )  # fmt: skip

    d_query = tl.zeros([ROWS, WIDTH], tl.float32)
    d_term = tl.zeros([ROWS], tl.float32)
    d_slope = tl.zeros([ROWS], tl.float32)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE, COLUMNS)):
            tile = place_at(walk, turn, EDGE, COLUMNS)
            start = first_of(sight, tile, BLOCK)
            others = start + tl.arange(0, COLUMNS)
            exists = others < at.keys
            columns = others[None, :]
            k_tile = load_tile(
                ours.k, start, exists, at.part, ours.head, model.k_row, model.width, DESCRIPTORS, COLUMNS, WIDTH
            )
            products = dot_rows(ours.q, k_tile, tl.zeros([ROWS, COLUMNS], tl.float32), PRECISION)
            c = vector_or(None, ours.key_scale, others, exists, 0)
            w = vector_or(None, ours.key_bias, others, exists, 0)
            s, bent = scores(
                products, positions, columns, ours.a, c, ours.u, w, ours.slope, ours.table,
                model.radius, model.cap, model.cap is not None,
            )  # fmt: skip
            other_s = scores_at(
                theirs, start, False, other.cap is not None, OTHER_PRECISION, DESCRIPTORS, COLUMNS, OTHER_WIDTH
            )
            if EDGE:
                inside = visible(sight, tile, rows[:, None], positions, columns, LEFT, RIGHT, BLOCK)
                s, other_s = tl.where(inside, s, UNSEEN), tl.where(inside, other_s, UNSEEN)
            ds = by_score(s, other_s, terms, plane, place, valid, KIND, FIRST, 1)
            if model.slopes is not None:
                d_slope -= tl.sum(ds * tl.abs(positions - columns).to(tl.float32), axis=1)
            if model.cap is not None:
                ds -= ds * bent * bent
            if dquery_bias is not None:
                d_term += tl.sum(ds, axis=1)
            if model.key_scale is not None:
                ds *= c
            d_query = dot(weights_as(ds, k_tile), k_tile, d_query, PRECISION)

    inner = tl.arange(0, WIDTH)
    if dquery_scale is not None:
        # The sum over ds c k, times q, is that over ds c <q, k>.
        total = tl.sum(ours.q.to(tl.float32) * d_query, axis=1)
        tl.store(dquery_scale + place, total * bare_scale, mask=valid)
        d_query *= ours.a
    d_query *= unscale
    tl.store(
        dq + place[:, None] * model.width + inner[None, :], d_query.to(dq.dtype.element_ty),
        mask=valid[:, None] & (inner < model.width)[None, :],
    )  # fmt: skip
    if dquery_bias is not None:
        tl.store(dquery_bias + place, d_term, mask=valid)
    if dslopes is not None:
        tl.store(dslopes + place, d_slope, mask=valid)


@triton.jit(do_not_specialize=["heads", "queries", "keys", "blocks", "plane", "left", "right"])
def divergence_keys_kernel(
    q, k, other_q, other_k,  # [B, H, Nq, D], [B, Hk, Nk, D]: rows contiguous inside, or descriptors of such
    model, other,  # see `Model`: that of the gradients, and the other one
    terms,  # [4, B, H, Nq] float32: see `divergence_launch.planes`
    dk, dkey_scale, dkey_bias,  # [B, Hk, Nk, D], [B, H, Nk] float32 the others, or None
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    heads, queries, keys, blocks, plane, unscale, left, right,
    KIND: tl.constexpr, FIRST: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, OTHER_PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the gradients of COLUMNS keys, and of their factors and terms, which each head has.

    The grid is one-dimensional: blocks of keys run fastest, then heads of keys, then sequences.
    """
    at, key_head, first, others, exists = block_of_keys(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0) % blocks, tl.program_id(0) // blocks, heads // model.group,
        cu_seqlens_q, cu_seqlens_k, queries, keys, BOTTOM_RIGHT, COLUMNS,
    )  # fmt: skip
    if first >= at.keys:
        return
    columns = others[:, None]
    k_from = row_of(k, at.part, key_head, at.first_key, model.k_batch, model.k_head, model.k_row, DESCRIPTORS)
    k_tile = load_tile(k_from, first, exists, at.part, key_head, model.k_row, model.width, DESCRIPTORS, COLUMNS, WIDTH)
    d_key = tl.zeros([COLUMNS, WIDTH], tl.float32)
    for member in range(model.group):
        head = key_head * model.group + member
        other_key_head = head // other.group
        q_from, other_q_from = (
            queries_of(model, q, at, head, DESCRIPTORS),
            queries_of(other, other_q, at, head, DESCRIPTORS),
        )
        other_k_tile = load_tile(
            keys_of(other, other_k, at, head, DESCRIPTORS), first, exists, at.part, other_key_head,
            other.k_row, other.width, DESCRIPTORS, COLUMNS, OTHER_WIDTH,
        )  # fmt: skip
        c = vector_or(None, factors_of_keys(model, at, head), others, exists, 1)
        w = vector_or(None, terms_of_keys(model, at, head), others, exists, 1)
        other_c = vector_or(None, factors_of_keys(other, at, head), others, exists, 1)
        other_w = vector_or(None, terms_of_keys(other, at, head), others, exists, 1)
        slope, table = slope_of(model.slopes, head), table_of(model.table, head, model.radius)
        other_slope, other_table = slope_of(other.slopes, head), table_of(other.table, head, other.radius)
        sight, walk = queries_seeing(
            first, at, head, left, right, mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
            LEFT, RIGHT, BLOCK, ROWS, COLUMNS, True,
        )  # fmt: skip
        d_term = tl.zeros([COLUMNS], tl.float32)
        d_scale = tl.zeros([COLUMNS], tl.float32)
        for EDGE in tl.static_range(0, 2):
            for turn in range(turns(walk, EDGE, ROWS)):
                tile = place_at(walk, turn, EDGE, ROWS)
                start = first_of(sight, tile, BLOCK)
                rows = start + tl.arange(0, ROWS)
                valid = rows < at.queries
                positions = (rows + at.shift)[None, :]
                place = first_place(at.part, head, heads, at.first_query, queries) + rows
                q_tile = load_tile(
                    q_from, start, valid, at.part, head, model.q_row, model.width, DESCRIPTORS, ROWS, WIDTH
                )
                other_q_tile = load_tile(
                    other_q_from, start, valid, at.part, head, other.q_row, other.width,
                    DESCRIPTORS, ROWS, OTHER_WIDTH,
                )  # fmt: skip
                products = dot_rows(k_tile, q_tile, tl.zeros([COLUMNS, ROWS], tl.float32), PRECISION)
                other_products = dot_rows(
                    other_k_tile, other_q_tile, tl.zeros([COLUMNS, ROWS], tl.float32), OTHER_PRECISION
                )
                some = valid if EDGE else None
                a = vector_or(model.scale, model.query_scale, place, some, 0)
                u = vector_or(None, model.query_bias, place, some, 0)
                other_a = vector_or(other.scale, other.query_scale, place, some, 0)
                other_u = vector_or(None, other.query_bias, place, some, 0)
                s, bent = scores(
                    products, positions, columns, a, c, u, w, slope, table,
                    model.radius, model.cap, model.cap is not None,
                )  # fmt: skip
                other_s, _ = scores(
                    other_products, positions, columns, other_a, other_c, other_u, other_w, other_slope, other_table,
                    other.radius, other.cap, other.cap is not None,
                )  # fmt: skip
                if EDGE:
                    inside = visible(sight, tile, rows[None, :], positions, columns, LEFT, RIGHT, BLOCK)
                    s, other_s = tl.where(inside, s, UNSEEN), tl.where(inside, other_s, UNSEEN)
                ds = by_score(s, other_s, terms, plane, place, some, KIND, FIRST, 0)
                if model.cap is not None:
                    ds -= ds * bent * bent
                if dkey_bias is not None:
                    d_term += tl.sum(ds, axis=1)
                if model.query_scale is not None:
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

    written = first_place(at.part, key_head, heads // model.group, at.first_key, keys) + others
    inner = tl.arange(0, WIDTH)
    tl.store(
        dk + written[:, None] * model.width + inner[None, :], (d_key * unscale).to(dk.dtype.element_ty),
        mask=exists[:, None] & (inner < model.width)[None, :],
    )  # fmt: skip
