"""The pointwise functions f(u; a) of kernels, with their slopes, in plain torch.

Each is written once: with `out` its steps overwrite that memory, without it they can be differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LOG2E = math.log2(math.e)
_THIRD = 1 / 3


class Function(NamedTuple):
    """A function k = f(u; a), where u = w t, with the whole number n of its leaf.

    Attributes:
        value: Takes u, a, n and `out`, which may be u itself; returns f(u; a).
        slope: Takes u, k, a, n; returns df/du, or None for 1. Finite wherever f is.
        by_shape: Likewise df/da; None if f has no a.
    """

    value: Callable[[Tensor, Tensor, int, Tensor | None], Tensor]
    slope: Callable[[Tensor, Tensor, Tensor, int], Tensor | None]
    by_shape: Callable[[Tensor, Tensor, Tensor, int], Tensor] | None = None


def exp(u: Tensor, out: Tensor | None = None) -> Tensor:
    """Return e^u: torch's own takes many times as long where it underflows, its exp2 does not."""
    return torch.exp2(torch.mul(u, LOG2E, out=out), out=out)


def _identity() -> Function:
    """Return f = u."""
    return Function(lambda u, a, n, out: u, lambda u, k, a, n: None)


def _exponential() -> Function:
    """Return f = e^u: RBF, Laplace and Matern 1/2."""
    return Function(lambda u, a, n, out: exp(u, out), lambda u, k, a, n: k)


def _matern3() -> Function:
    """Return f = (1 - u) e^u, Matern 3/2, with u = -sqrt(3) r / bandwidth."""
    return Function(lambda u, a, n, out: torch.mul(1 - u, exp(u), out=out), lambda u, k, a, n: -u * exp(u))


def _matern5() -> Function:
    """Return f = (1 - u + u² / 3) e^u, Matern 5/2, with u = -sqrt(5) r / bandwidth."""

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return torch.mul(1 - u + u * u * _THIRD, exp(u), out=out)

    return Function(value, lambda u, k, a, n: u * (u - 1) * exp(u) * _THIRD)


def _rational() -> Function:
    """Return f = (1 - u / a)^-a: rational quadratic."""

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return exp(torch.mul(torch.log1p(torch.div(u, -a, out=out), out=out), -a, out=out), out)

    def by_shape(u: Tensor, k: Tensor, a: Tensor, n: int) -> Tensor:
        v = u / a
        return -k * (torch.log1p(-v) + v / (1 - v))

    return Function(value, lambda u, k, a, n: k / (1 - u / a), by_shape)


def _inverse() -> Function:
    """Return f = (1 - u)^-1/2: inverse multiquadric."""

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return torch.rsqrt(torch.add(torch.neg(u, out=out), 1, out=out), out=out)

    return Function(value, lambda u, k, a, n: 0.5 * k * k * k)


def _power() -> Function:
    """Return f = (u + a)^n: polynomial."""

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return torch.pow(torch.add(u, a, out=out), n, out=out)

    def slope(u: Tensor, k: Tensor, a: Tensor, n: int) -> Tensor:
        return n * (u + a) ** (n - 1)

    return Function(value, slope, slope)


def _angle() -> Function:
    """Return f = J_n(angle) / pi of Cho and Saul, where -u is the chord between two unit vectors.

    Angles come from chords, not from cosines: those near 0 keep their digits.
    """

    def halves(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sin and cos of half of the angle, and pi - angle."""
        sin = (u * -0.5).clamp(max=1.0)
        return sin, (1 - sin * sin).clamp(min=0.0).sqrt(), math.pi - 2 * torch.asin(sin)

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        if n == 0:
            return torch.mul(math.pi - 2 * torch.asin((u * -0.5).clamp(max=1.0)), 1 / math.pi, out=out)
        half, other, rest = halves(u)
        sin, cos = 2 * half * other, 1 - 2 * half * half
        j = sin + rest * cos if n == 1 else 3 * sin * cos + rest * (1 + 2 * cos * cos)
        return torch.mul(j, 1 / math.pi, out=out)

    def slope(u: Tensor, k: Tensor, a: Tensor, n: int) -> Tensor:
        half, other, rest = halves(u)
        if n == 0:
            return torch.where(other > 0, 1 / other, 0) / math.pi
        if n == 1:
            return 2 * rest * half / math.pi
        return 8 * half * (2 * half * other + rest * (1 - 2 * half * half)) / math.pi

    return Function(value, slope)


def _softplus() -> Function:
    """Return f = log(1 + e^(u + a)): minus the logarithm of the probability that two rows are no pair."""

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return torch.logaddexp(torch.add(u, a, out=out), torch.zeros_like(a), out=out)

    def slope(u: Tensor, k: Tensor, a: Tensor, n: int) -> Tensor:
        return torch.sigmoid(u + a)

    return Function(value, slope, slope)


def _logarithm() -> Function:
    """Return f = -a log(-u), of a distance -u; that of two equal rows is the smallest normal number."""

    def log(u: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.log(torch.clamp(torch.neg(u, out=out), min=torch.finfo(u.dtype).tiny, out=out), out=out)

    def value(u: Tensor, a: Tensor, n: int, out: Tensor | None) -> Tensor:
        return torch.mul(log(u, out), -a, out=out)

    def slope(u: Tensor, k: Tensor, a: Tensor, n: int) -> Tensor:
        return torch.where(u < 0, -a / u, 0)

    return Function(value, slope, lambda u, k, a, n: -log(u))


FUNCTIONS = {
    "identity": _identity(),
    "exp": _exponential(),
    "matern3": _matern3(),
    "matern5": _matern5(),
    "rational": _rational(),
    "inverse": _inverse(),
    "power": _power(),
    "angle": _angle(),
    "softplus": _softplus(),
    "logarithm": _logarithm(),
}
