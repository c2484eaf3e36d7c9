"""From moments to the sums of kernel values: the equations of `lamina.similarity.moments`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lamina.similarity.independence import Sums

if TYPE_CHECKING:
    from torch import Tensor

    from lamina.similarity.moments import Moments


Matrices = tuple["Tensor", float]
"""[buckets, dx, dy] and a factor."""


def sums_of(moments: Moments) -> Sums:
    """Return the sums of K and L with zeros within groups, [buckets]."""
    c = [_power(moments.c, power, moments.u) for power in range(3)]
    d = [_power(moments.d, power, moments.u) for power in range(2)]
    (x0, x1), (y0, y1) = moments.x.unbind(1), moments.y.unbind(1)
    (v0, v1), (w0, w1), e, f = moments.v.unbind(1), moments.w.unbind(1), moments.e, moments.f
    q0, q1, q2, t0, t1, ee, norms_x, norms_y = moments.scalars.unbind(1)
    dot = torch.linalg.vecdot
    values = {
        "p00": _inner(c[0], c[0]) - q0,
        "p10": _inner(c[1], c[0]) - q1,
        "p20": _inner(c[2], c[0]) - q2,
        "p11": _inner(c[1], c[1]) - q2,
        "rho0": _between(x0, c[0], y0) - dot(x0, v0) - dot(w0, y0) + t0,
        "rho1": _between(x0, c[1], y0) - dot(x0, v1) - dot(w1, y0) + t1,
        "rho_x": _between(x1, c[0], y0) - dot(x1, v0) - dot(w1, y0) + t1,
        "rho_y": _between(x0, c[0], y1) - dot(x0, v1) - dot(w0, y1) + t1,
        "tau00": _inner(c[0], d[0]) - t0,
        "tau10": _inner(c[1], d[0]) - t1,
        "tau01": _inner(c[0], d[1]) - t1,
        "total_x": dot(x0, x0) - norms_x,
        "total_y": dot(y0, y0) - norms_y,
        "margins": _between(x0, d[0], y0) - dot(x0, e) - dot(f, y0) + ee,
        "groups": _inner(d[0], d[0]) - ee,
    }
    return Sums(**{name: value.numpy() for name, value in values.items()})


def whole_sums_of(moments: Moments) -> Sums:
    """Return the sums of the whole K and L, within groups too, as far as the biased HSIC needs them, [buckets]."""
    x0, y0, c = moments.x[:, 0], moments.y[:, 0], _power(moments.c, 0, moments.u)
    sums = Sums.zeros(len(x0))
    sums.p00, sums.rho0 = _inner(c, c).numpy(), _between(x0, c, y0).numpy()
    sums.total_x, sums.total_y = x0.square().sum(1).numpy(), y0.square().sum(1).numpy()
    return sums


def _power(matrices: Tensor, power: int, u: int | None) -> Matrices:
    return (matrices[:, 0], float(u) ** power) if u else (matrices[:, power], 1.0)


def _inner(a: Matrices, b: Matrices) -> Tensor:
    return torch.linalg.vecdot(a[0].flatten(1), b[0].flatten(1)) * (a[1] * b[1])


def _between(x: Tensor, matrices: Matrices, y: Tensor) -> Tensor:
    return torch.linalg.vecdot(x, (matrices[0] @ y[:, :, None])[:, :, 0]) * matrices[1]
