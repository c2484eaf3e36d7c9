"""From moments to the sums of kernel values: the equations of `lamina.similarity.moments`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lamina.similarity.independence import Sums

if TYPE_CHECKING:
    from torch import Tensor

    from lamina.similarity.moments import Moments


def sums_of(moments: Moments) -> Sums:
    """Return the sums of K and L with zeros within groups, [buckets]."""
    if moments.u:
        return _of_equal_groups(moments, moments.u)
    c, d = moments.c.unbind(1), moments.d.unbind(1)
    (x0, x1), (y0, y1) = moments.x.unbind(1), moments.y.unbind(1)
    (v0, v1), (w0, w1), e, f = moments.v.unbind(1), moments.w.unbind(1), moments.e, moments.f
    q0, q1, q2, t0, t1, ee, norms_x, norms_y = moments.scalars.unbind(1)
    c0_y0 = _times(c[0], y0)
    values = {
        "p00": _inner(c[0], c[0]) - q0,
        "p10": _inner(c[1], c[0]) - q1,
        "p20": _inner(c[2], c[0]) - q2,
        "p11": _inner(c[1], c[1]) - q2,
        "rho0": _dot(x0, c0_y0) - _dot(x0, v0) - _dot(w0, y0) + t0,
        "rho1": _dot(x0, _times(c[1], y0)) - _dot(x0, v1) - _dot(w1, y0) + t1,
        "rho_x": _dot(x1, c0_y0) - _dot(x1, v0) - _dot(w1, y0) + t1,
        "rho_y": _dot(x0, _times(c[0], y1)) - _dot(x0, v1) - _dot(w0, y1) + t1,
        "tau00": _inner(c[0], d[0]) - t0,
        "tau10": _inner(c[1], d[0]) - t1,
        "tau01": _inner(c[0], d[1]) - t1,
        "total_x": _dot(x0, x0) - norms_x,
        "total_y": _dot(y0, y0) - norms_y,
        "margins": _dot(x0, _times(d[0], y0)) - _dot(x0, e) - _dot(f, y0) + ee,
        "groups": _inner(d[0], d[0]) - ee,
    }
    return Sums(**{name: value.numpy() for name, value in values.items()})


def _of_equal_groups(moments: Moments, u: int) -> Sums:
    """Return the same where all groups have u rows: each power of the size is a factor, and 3 d^2 products do."""
    c, d, x, y = moments.c[:, 0], moments.d[:, 0], moments.x[:, 0], moments.y[:, 0]
    q, _, _, t, _, ee, norms_x, norms_y = moments.scalars.unbind(1)
    # where every row is a group C and D are one
    same = moments.d is moments.c
    squares, rho = _inner(c, c), _dot(x, _times(c, y))
    margins, p = (rho if same else _dot(x, _times(d, y))), squares - q
    tau = (squares if same else _inner(c, d)) - t
    rho = rho - _dot(x, moments.v[:, 0]) - _dot(moments.w[:, 0], y) + t
    values = {
        "p00": p,
        "p10": u * p,
        "p20": u * u * p,
        "p11": u * u * p,
        "rho0": rho,
        "rho1": u * rho,
        "rho_x": u * rho,
        "rho_y": u * rho,
        "tau00": tau,
        "tau10": u * tau,
        "tau01": u * tau,
        "total_x": _dot(x, x) - norms_x,
        "total_y": _dot(y, y) - norms_y,
        "margins": margins - _dot(x, moments.e) - _dot(moments.f, y) + ee,
        "groups": (squares if same else _inner(d, d)) - ee,
    }
    return Sums(**{name: value.numpy() for name, value in values.items()})


def whole_sums_of(moments: Moments) -> Sums:
    """Return the sums of the whole K and L, within groups too, as far as the biased HSIC needs them, [buckets]."""
    x0, y0, c = moments.x[:, 0], moments.y[:, 0], moments.c[:, 0]
    sums = Sums.zeros(len(x0))
    sums.p00, sums.rho0 = _inner(c, c).numpy(), _dot(x0, _times(c, y0)).numpy()
    sums.total_x, sums.total_y = _dot(x0, x0).numpy(), _dot(y0, y0).numpy()
    return sums


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[:, :, None])[:, :, 0]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b)
