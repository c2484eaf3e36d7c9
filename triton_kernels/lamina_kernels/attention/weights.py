"""Triton functions of the weights of a tile, made again from log-sum-exps, and of the gradients of its scores."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention import gradients
from lamina_kernels.attention.rows import vector
from lamina_kernels.attention.score import UNSEEN, scores

# What the log-sum-exp of a query is taken for that sees no key, or does not exist: its weights are 0.
NO_KEY = tl.constexpr(gradients.NO_KEY)


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
def score_gradients(
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
