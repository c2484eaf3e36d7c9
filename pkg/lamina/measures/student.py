"""Quantiles of Student's t distribution."""

from __future__ import annotations

import math


def t_quantile(level: float, freedom: int) -> float:
    """Return t such that |T| <= t with probability `level`, T having Student's distribution.

    The probability for whole degrees of freedom is a finite sum (Abramowitz and Stegun, Handbook of Mathematical
    Functions, 26.7.3 and 26.7.4); it is inverted by bisection to the last bit.

    Args:
        level: Between 0 and 1.
        freedom: Degrees of freedom, at least 1.

    Raises:
        ValueError: An argument is outside of its range.

    Example:
        >>> round(t_quantile(0.95, 31), 4)
        2.0395
    """
    if not 0 < level < 1 or freedom < 1:
        raise ValueError(f"the level {level} is not between 0 and 1, or there are {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        low, high = high, 2 * high
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return the probability of |T| <= t."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for i in range(1, freedom // 2 + 1):
        total += term
        term *= cosine * cosine * (2 * i - 1 + odd) / (2 * i + odd)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
