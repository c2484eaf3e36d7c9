"""From moments to the sums of kernel values: the equations of `lamina.similarity.moments`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lamina.similarity.independence import Sums

if TYPE_CHECKING:
    from torch import Tensor

    from lamina.similarity.moments import Moments


def sums_of(moments: Moments) -> Sums:
    """Return the sums of K and L with zeros within groups; only for one bucket."""
    c = [_power(moments.c[0], power, moments.u) for power in range(3)]
    d = [_power(moments.d[0], power, moments.u) for power in range(2)]
    (x0, x1), (y0, y1), (v0, v1), (w0, w1) = moments.x[0], moments.y[0], moments.v[0], moments.w[0]
    e, f = moments.e[0], moments.f[0]
    q0, q1, q2, t0, t1, ee, norms_x, norms_y = moments.scalars[0]
    values = {
        "p00": _inner(c[0], c[0]) - q0,
        "p10": _inner(c[1], c[0]) - q1,
        "p20": _inner(c[2], c[0]) - q2,
        "p11": _inner(c[1], c[1]) - q2,
        "rho0": _between(x0, c[0], y0) - x0 @ v0 - w0 @ y0 + t0,
        "rho1": _between(x0, c[1], y0) - x0 @ v1 - w1 @ y0 + t1,
        "rho_x": _between(x1, c[0], y0) - x1 @ v0 - w1 @ y0 + t1,
        "rho_y": _between(x0, c[0], y1) - x0 @ v1 - w0 @ y1 + t1,
        "tau00": _inner(c[0], d[0]) - t0,
        "tau10": _inner(c[1], d[0]) - t1,
        "tau01": _inner(c[0], d[1]) - t1,
        "total_x": x0 @ x0 - norms_x,
        "total_y": y0 @ y0 - norms_y,
        "margins": _between(x0, d[0], y0) - x0 @ e - f @ y0 + ee,
        "groups": _inner(d[0], d[0]) - ee,
    }
    return Sums(**{name: value.numpy() for name, value in values.items()})


def whole_sums_of(moments: Moments) -> Sums:
    """Return the sums of the whole K and L, within groups too, as far as the biased HSIC needs them."""
    (x0, _), (y0, _), c = moments.x[0], moments.y[0], moments.c[0, 0]
    sums = Sums.zeros()
    sums.p00, sums.rho0 = c.square().sum().numpy(), (x0 @ c @ y0).numpy()
    sums.total_x, sums.total_y = (x0 @ x0).numpy(), (y0 @ y0).numpy()
    return sums


def _power(matrices: Tensor, power: int, u: int | None) -> tuple[Tensor, float]:
    """Return a matrix and a factor."""
    return (matrices[0], float(u) ** power) if u else (matrices[power], 1.0)


def _inner(a: tuple[Tensor, float], b: tuple[Tensor, float]) -> Tensor:
    return torch.dot(a[0].flatten(), b[0].flatten()) * (a[1] * b[1])


def _between(x: Tensor, matrix: tuple[Tensor, float], y: Tensor) -> Tensor:
    return torch.dot(x, matrix[0] @ y) * matrix[1]
