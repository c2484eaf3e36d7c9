"""The Triton kernel of the divergence of two attentions."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.divergence_score import scoring_of
from lamina_kernels.attention.forward import MINUS_INFINITY, fall, under
from lamina_kernels.attention.rows import block_of_queries
from lamina_kernels.attention.score import LN2, LOG2E, UNSEEN, scores_at
from lamina_kernels.attention.walk import first_of, keys_seen, place_at, turns, visible
from lamina_kernels.attention.weights import NO_KEY
from lamina_kernels.tiles.dot import INTERPRETED
from lamina_kernels.tiles.load import INDEX

# Logarithms of two weights that differ by less, times what they are differences of, differ by rounding alone.
NEAR = tl.constexpr(2.0**-20)


@triton.jit
def above_middle(ratio):
    """Return log2(a / m) for b / a = ratio at most 1, with m the mean of a and b: 1 - log2(1 + ratio).

    It is (1 - ratio) times a polynomial, so that its digits are right where a and b are nearly the same: within 4e-7 of
    the value. Triton's own logarithm takes three times as many instructions.
    """
    q = -0.006846271920949221
    q = q * ratio + 0.03514374420046806
    q = q * ratio - 0.08560753613710403
    q = q * ratio + 0.14166159927845
    q = q * ratio - 0.19856858253479004
    q = q * ratio + 0.2782418429851532
    q = q * ratio - 0.44267725944519043
    q = q * ratio + 0.9999998807907104
    return (1.0 - ratio) * q


@triton.jit
def taken_in(m, l, s, to_log2):  # noqa: E741
    """Return the largest score, what sums fall by, their sum of exponentials before, and z and exp2 z of a tile."""
    larger = tl.maximum(m, tl.max(s, 1))
    fallen = fall(m, larger, to_log2)
    z = under(s, larger[:, None], to_log2)
    return larger, fallen, l * fallen, z, tl.exp2(z)


@triton.jit
def known_below(lse, valid, to_nats):
    """Return log-sum-exps in units of scores, UNSEEN where no key is seen."""
    nats = tl.load(lse, mask=valid, other=0.0)
    return tl.where(nats == MINUS_INFINITY, UNSEEN, nats / to_nats)


@triton.jit
def sign(apart, near):
    """Return the sign of a difference, 0 where rounding may have made it: of a query with one key p = r = 1."""
    return tl.where(apart > near, 1.0, tl.where(apart < -near, -1.0, 0.0))


@triton.jit
def further_under(s, m, to_log2, less):
    """Return what `under` does, less a number."""
    if INTERPRETED:
        return under(s, m, to_log2) - less
    else:
        return s * to_log2 - (m * to_log2 + less)


@triton.jit
def signed(x, like):
    """Return numbers that are not negative with the signs of others."""
    sign_of = like.to(tl.int32, bitcast=True) & -(2**31)
    return (x.to(tl.int32, bitcast=True) | sign_of).to(tl.float32, bitcast=True)


@triton.jit
def parts(z, y, near, KIND: tl.constexpr):
    """Return what a tile of weights p = exp2 z and r = exp2 y adds to two sums, with f' the derivatives by p and by r.

    "js": of p f' + r f' and of p f' - r f', in units of log 2 / 2. "tv": of the smaller of p and r, and of it with the
    sign of p - r; `near` is as in `sign`.
    """
    apart = z - y
    if KIND == "js":
        ratio = tl.exp2(-tl.abs(apart))
        larger = tl.exp2(tl.maximum(z, y))
        above = above_middle(ratio)
        below = above - tl.abs(apart)
        return larger * (above + ratio * below), signed(larger, apart) * (above - ratio * below)
    else:
        smaller = tl.exp2(tl.minimum(z, y))
        return smaller, tl.where(tl.abs(apart) > near, 1.0, 0.0) * signed(smaller, apart)


@triton.jit(do_not_specialize=["heads", "queries", "keys", "blocks", "plane", "left", "right"])
def divergence_kernel(
    q, k, other_q, other_k,  # [B, H, Nq, D], [B, Hk, Nk, D]: rows contiguous inside, or descriptors of such
    model, other,  # see `Model`
    known, other_known,  # [B, H, Nq] float32: both log-sum-exps, or None
    found,  # [5, B, H, Nq] float32: `Divergences`
    cu_seqlens_q, cu_seqlens_k,
    mask_starts, mask_blocks, mask_partial, mask_bits, mask_batch, mask_head,
    heads, queries, keys, blocks, plane, left, right,
    KIND: tl.constexpr, PLAIN: tl.constexpr, OTHER_PLAIN: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BOTTOM_RIGHT: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, OTHER_PRECISION: tl.constexpr, DESCRIPTORS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, OTHER_WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the divergence of ROWS queries of one head, both log-sum-exps and the means that gradients need.

    One walk over the keys is enough for "kl": with z and y the scores of the two below their largest ones so far, it
    is the mean of z - y under p less the difference of the logarithms of the sums of exponentials. The others walk
    again, when weights are known. They are known from the start where log-sum-exps are, each of which stands for a
    largest score with a sum of 1; one walk is then enough for all. The grid is that of the forward pass.
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
    # Scores are bare products, or nats.
    to_nats = model.scale if PLAIN else 1.0
    to_log2 = model.scale * LOG2E if PLAIN else LOG2E
    other_to_nats = other.scale if OTHER_PLAIN else 1.0
    other_to_log2 = other.scale * LOG2E if OTHER_PLAIN else LOG2E
    # Whether a query of the first may see a key that the second hides.
    HIDES: tl.constexpr = KIND == "kl" and other.key_bias is not None
    KNOWN: tl.constexpr = known is not None

    m = tl.full([ROWS], UNSEEN, tl.float32)
    other_m = tl.full([ROWS], UNSEEN, tl.float32)
    l = tl.zeros([ROWS], tl.float32)  # noqa: E741
    other_l = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    other_total = tl.zeros([ROWS], tl.float32)
    less = tl.zeros([ROWS], tl.float32)
    near = tl.zeros([ROWS], tl.float32)
    endless = tl.zeros([ROWS], tl.float32)
    if KNOWN:
        m, l = known_below(known + place, valid, to_nats), l + 1.0  # noqa: E741
        other_m, other_l = known_below(other_known + place, valid, other_to_nats), other_l + 1.0
    for AGAIN in tl.static_range(1 if KNOWN else 0, 1 if KIND == "kl" and not KNOWN else 2):
        if AGAIN:
            # A model that sees no key of a query gives it no weights: all scores are far below the largest one.
            m, l = tl.where(m == UNSEEN, NO_KEY, m), tl.where(m == UNSEEN, 1.0, l)  # noqa: E741
            other_l = tl.where(other_m == UNSEEN, 1.0, other_l)
            other_m = tl.where(other_m == UNSEEN, NO_KEY, other_m)
            # Weights of both are taken times the sum of the first.
            less = tl.log2(other_l) - tl.log2(l)
            near = (tl.abs(m) * to_log2 + tl.abs(other_m) * other_to_log2) * NEAR
        for EDGE in tl.static_range(0, 2):
            for turn in range(turns(walk, EDGE, COLUMNS)):
                tile = place_at(walk, turn, EDGE, COLUMNS)
                start = first_of(sight, tile, BLOCK)
                s = scores_at(ours, start, PLAIN, model.cap is not None, PRECISION, DESCRIPTORS, COLUMNS, WIDTH)
                other_s = scores_at(
                    theirs, start,
                    OTHER_PLAIN, other.cap is not None, OTHER_PRECISION, DESCRIPTORS, COLUMNS, OTHER_WIDTH,
                )  # fmt: skip
                if EDGE:
                    columns = (start + tl.arange(0, COLUMNS))[None, :]
                    inside = visible(sight, tile, rows[:, None], positions, columns, LEFT, RIGHT, BLOCK)
                    s, other_s = tl.where(inside, s, UNSEEN), tl.where(inside, other_s, UNSEEN)
                if HIDES:
                    alone = tl.where(s > UNSEEN, tl.where(other_s > UNSEEN, 0.0, 1.0), 0.0)
                    endless = tl.maximum(endless, tl.max(alone, 1))
                if AGAIN:
                    z = under(s, m[:, None], to_log2)
                    y = further_under(other_s, other_m[:, None], other_to_log2, less[:, None])
                    if KIND == "kl":
                        total += tl.sum(tl.exp2(z) * (z - y), 1)
                    else:
                        part, other_part = parts(z, y, near[:, None], KIND)
                        total += tl.sum(part, 1)
                        other_total += tl.sum(other_part, 1)
                else:
                    larger, fallen, before, z, p = taken_in(m, l, s, to_log2)
                    other_larger, _, other_before, y, r = taken_in(other_m, other_l, other_s, other_to_log2)
                    l = before + tl.sum(p, 1)  # noqa: E741
                    other_l = other_before + tl.sum(r, 1)
                    if KIND == "kl":
                        # What was not a weight leaves nothing, however large.
                        total = tl.where(m == UNSEEN, 0.0, total * fallen) + tl.sum(p * (z - y), 1)
                        total += ((m - larger) * to_log2 - (other_m - other_larger) * other_to_log2) * before
                    m, other_m = larger, other_larger

    # A broken row is not an unseen one.
    NOTHING: tl.constexpr = UNSEEN if KIND == "kl" and not KNOWN else NO_KEY
    unseen, other_unseen = (m == NOTHING) & (l == l), (other_m == NOTHING) & (other_l == other_l)
    if KIND == "kl":
        mean = total / l * LN2 - tl.log(l) + tl.log(other_l)
        # Rounded, it may be less than nothing.
        value = tl.where(mean < 0, 0.0, mean)
        value = tl.where(unseen, 0.0, tl.where(other_unseen | (endless > 0), float("inf"), value))
        mean, other_mean = value, tl.where(unseen, 0.0, -1.0)
    else:
        total, other_total = total / l, other_total / l
        if KIND == "js":
            mean, other_mean = (total + other_total) * (0.25 * LN2), (total - other_total) * (0.25 * LN2)
        else:
            mean = 0.5 * (tl.where(unseen, 0.0, 1.0) - total + other_total)
            other_mean = 0.5 * (tl.where(other_unseen, 0.0, 1.0) - total - other_total)
        value = mean + other_mean
        # Rounded, nothing may be a little more or less.
        value = tl.where(value < (NEAR if KIND == "tv" else 0.0), 0.0, value)
    here = found + place
    tl.store(here, value, mask=valid)
    tl.store(here + plane, tl.where(unseen, MINUS_INFINITY, m * to_nats + tl.log(l)), mask=valid)
    other_lse = tl.where(other_unseen, MINUS_INFINITY, other_m * other_to_nats + tl.log(other_l))
    tl.store(here + 2 * plane.to(INDEX), other_lse, mask=valid)
    tl.store(here + 3 * plane.to(INDEX), mean, mask=valid)
    tl.store(here + 4 * plane.to(INDEX), other_mean, mask=valid)
