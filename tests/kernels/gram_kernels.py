"""The kernels that the tests of reductions run over, and their values by formulas of their own, from differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    ArcCosine,
    Cosine,
    Distance,
    InverseMultiquadric,
    Kernel,
    Laplace,
    Linear,
    Matern,
    Pointwise,
    Polynomial,
    RationalQuadratic,
    SquaredDistance,
)

WIDTH = 4
TANIMOTO = Pointwise(lambda dot, x, y: dot / (x + y - dot))


class Case(NamedTuple):
    """A kernel as a function of its hyperparameters, their values, and k(x, y) of two rows as anyone would write it."""

    make: Callable[..., Kernel]
    held: tuple[float | list[float], ...]
    value: Callable[..., Tensor]


def _r(x: Tensor, y: Tensor, b: Tensor | float = 1.0, p: float = 2) -> Tensor:
    return torch.linalg.vector_norm((x - y) / b, ord=p)


def _angle(x: Tensor, y: Tensor) -> Tensor:
    return torch.arccos((x @ y / x.norm() / y.norm()).clamp(-1, 1))


def _arc(n: int, x: Tensor, y: Tensor) -> Tensor:
    t = _angle(x, y)
    j = [
        math.pi - t,
        t.sin() + (math.pi - t) * t.cos(),
        3 * t.sin() * t.cos() + (math.pi - t) * (1 + 2 * t.cos() ** 2),
    ][n]
    return (x.norm() * y.norm()) ** n * j / math.pi


EACH = [1.1, 0.7, 1.6, 1.3]

CASES = {
    "linear": Case(Linear, (), lambda x, y: x @ y),
    "polynomial": Case(
        lambda g, c: Polynomial(3, gamma=g, coef0=c), (0.3, 0.7), lambda x, y, g, c: (g * (x @ y) + c) ** 3
    ),
    "cosine": Case(Cosine, (), lambda x, y: x @ y / x.norm() / y.norm()),
    "rbf": Case(RBF, (1.3,), lambda x, y, b: torch.exp(-((x - y) ** 2).sum() / (2 * b * b))),
    "rbf of each": Case(RBF, (EACH,), lambda x, y, b: torch.exp(-(((x - y) / b) ** 2).sum() / 2)),
    "squared distance": Case(SquaredDistance, (0.9,), lambda x, y, b: -((x - y) ** 2).sum() / (2 * b * b)),
    "laplace": Case(Laplace, (1.4,), lambda x, y, b: torch.exp(-_r(x, y) / b)),
    "laplace of each, norm 1": Case(lambda b: Laplace(b, norm=1), (EACH,), lambda x, y, b: torch.exp(-_r(x, y, b, 1))),
    "matern 1/2": Case(lambda b: Matern(b, nu=0.5), (EACH,), lambda x, y, b: torch.exp(-_r(x, y, b))),
    "matern 3/2": Case(
        lambda b: Matern(b, nu=1.5),
        (1.2,),
        lambda x, y, b: (1 + 3**0.5 * _r(x, y) / b) * torch.exp(-(3**0.5) * _r(x, y) / b),
    ),
    "matern 5/2": Case(
        lambda b: Matern(b, nu=2.5),
        (1.5,),
        lambda x, y, b: (
            (1 + 5**0.5 * _r(x, y) / b + 5 * _r(x, y) ** 2 / (3 * b * b)) * torch.exp(-(5**0.5) * _r(x, y) / b)
        ),
    ),
    "rational quadratic": Case(
        lambda b, a: RationalQuadratic(b, alpha=a),
        (1.2, 0.8),
        lambda x, y, b, a: (1 + _r(x, y) ** 2 / (2 * a * b * b)) ** -a,
    ),
    "inverse multiquadric": Case(InverseMultiquadric, (1.4,), lambda x, y, b: (1 + _r(x, y) ** 2 / b**2) ** -0.5),
    "distance": Case(Distance, (), lambda x, y: -_r(x, y)),
    "distance, norm 1": Case(lambda: Distance(1), (), lambda x, y: -_r(x, y, p=1)),
    "distance, norm 3": Case(lambda: Distance(3), (), lambda x, y: -_r(x, y, p=3)),
    "chebyshev": Case(lambda: Distance(math.inf), (), lambda x, y: -_r(x, y, p=math.inf)),
    "arc-cosine 0": Case(lambda: ArcCosine(0), (), lambda x, y: _arc(0, x, y)),
    "arc-cosine 1": Case(lambda: ArcCosine(1), (), lambda x, y: _arc(1, x, y)),
    "arc-cosine 2": Case(lambda: ArcCosine(2), (), lambda x, y: _arc(2, x, y)),
    "own": Case(lambda: TANIMOTO, (), lambda x, y: x @ y / (x @ x + y @ y - x @ y)),
    "sum": Case(
        lambda b, c: RBF(b) + Laplace(c, norm=1),
        (1.3, 2.1),
        lambda x, y, b, c: torch.exp(-((x - y) ** 2).sum() / (2 * b * b)) + torch.exp(-_r(x, y, p=1) / c),
    ),
    "product": Case(
        lambda c, b: Polynomial(2, gamma=0.5, coef0=c) * Matern(b, nu=0.5),
        (0.4, EACH),
        lambda x, y, c, b: (0.5 * (x @ y) + c) ** 2 * torch.exp(-_r(x, y, b)),
    ),
}


def normal(n: int, d: int = WIDTH, *, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def leaves(case: Case) -> list[Tensor]:
    """The hyperparameters of a case as leaves of torch's graph."""
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in case.held]


@contextmanager
def small_tiles() -> Iterator[None]:
    """Many tiles of few rows, none of them whole, in forward, backward and second passes; no shortcuts."""
    from lamina_kernels.gram.sums import linear

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lamina_kernels.gram.blocked_scores.BLOCK", 16)
        patch.setattr("lamina_kernels.gram.sums.blocked_second._LARGEST", 13)
        patch.setattr(linear, "cheaper", lambda p, v: False)
        yield


@contextmanager
def small_layers(block: int = 3) -> Iterator[None]:
    """Likewise, of measures of dependence, of which a sample of few rows is centered by."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lamina_kernels.gram.dependence.blocked.BLOCK", block)
        patch.setattr("lamina_kernels.gram.dependence.blocked.SAMPLE", 5)
        patch.setattr("lamina_kernels.gram.dependence.features.BLOCK", block)
        patch.setattr("lamina_kernels.gram.paired.blocked.BLOCK", block)
        patch.setattr("lamina_kernels.gram.sums.blocked_second._LARGEST", block)
        patch.setattr("lamina_kernels.tiles.inner.LONG", 4)
        yield
