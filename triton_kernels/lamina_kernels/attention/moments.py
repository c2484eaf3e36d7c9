"""Triton functions of sums over keys, tile by tile, without an exchange between threads.

Keys are P a + b. A matrix instruction leaves threads every a of few b, so that each sums over a for the b that it has;
the P sums are put together behind the last tile. P is 8, or 1 where a thread has whole rows. Means and variances of the
key come from sums of p, p x and p x² with x = P a - about. `about` lies where the largest score does: what is summed is
not much larger than what is left of it when the mean is taken off.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def sums(tile, P: tl.constexpr):
    """Return the sums of the rows of a tile [R, C]: [R, P], those over a for each b, or [R] if P is 0."""
    if P:
        return tl.sum(in_parts(tile, P), 1)
    else:
        return tl.sum(tile, 1)


@triton.jit
def in_parts(tile, P: tl.constexpr):
    """Return a tile [R, C] as [R, C // P, P]."""
    return tl.reshape(tile, [tile.shape[0], tile.shape[1] // P, P])


@triton.jit
def moments(p, begin):
    """Return the sums over a of p, p x and p x² of [R, A, P], x = P a + begin, [R], each [R, P]."""
    x = begin[:, None, None] + (tl.arange(0, p.shape[1]) * p.shape[2]).to(tl.float32)[None, :, None]
    return tl.sum(p, 1), tl.sum(p * x, 1), tl.sum(p * (x * x), 1)


@triton.jit
def moments_of_full(p):
    """Return the sums over a of p, p x and p x² of [R, A, P], x = P a counted from the middle, each [R, P].

    Of threads with few keys of a row, those on both sides of the middle share their products.
    """
    A: tl.constexpr = p.shape[1]
    P: tl.constexpr = p.shape[2]
    if P == 1:
        x = tl.arange(0, A).to(tl.float32)[None, :, None] - (A - 1) / 2
        return tl.sum(p, 1), tl.sum(p * x, 1), tl.sum(p * (x * x), 1)
    else:
        x = (tl.arange(0, A // 2) * P).to(tl.float32)[None, :, None] - P * (A - 1) / 2
        near, far = tl.split(tl.permute(tl.reshape(p, [p.shape[0], 2, A // 2, P]), (0, 2, 3, 1)))
        far = turned(far)
        both = near + far
        return tl.sum(both, 1), tl.sum((near - far) * x, 1), tl.sum(both * (x * x), 1)


@triton.jit
def turned(p):
    """Return [R, A, P] with the second dimension turned round."""
    R: tl.constexpr = p.shape[0]
    A: tl.constexpr = p.shape[1]
    P: tl.constexpr = p.shape[2]
    for step in tl.static_range(0, 8):  # pyright: ignore[reportGeneralTypeIssues]
        if (1 << step) < A:
            low, high = tl.split(tl.permute(tl.reshape(p, [R, A >> (step + 1), 2, 1 << step, P]), (0, 1, 3, 4, 2)))
            p = tl.reshape(tl.permute(tl.join(high, low), (0, 1, 4, 2, 3)), [R, A, P])
    return p


@triton.jit
def moved(weights, first, second, step):
    """Return the moments of weights about a point that lies `step` [R] ahead; all others [R, P]."""
    first_there = first - step[:, None] * weights
    return first_there, second - step[:, None] * (first + first_there)


@triton.jit
def mean_and_variance(weights, first, second):
    """Return the means of x + b, [R], and their variances, of sums [R, P]."""
    b = tl.arange(0, weights.shape[1]).to(tl.float32)[None, :]
    weight = tl.maximum(tl.sum(weights, 1), 1e-37)
    mean = tl.sum(first + b * weights, 1) / weight
    variance = tl.sum(second + b * (2 * first + b * weights), 1) / weight - mean * mean
    return mean, tl.where(variance < 0, 0.0, variance)
