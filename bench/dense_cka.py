"""A debiased CKA as one writes it in torch, with whole Gram matrices, and its true value for the comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch


def dense(
    x: np.ndarray, y: np.ndarray, *, device: str, bandwidth_x: float | None = None, bandwidth_y: float | None = None
) -> Callable[[], Mapping[str, torch.Tensor]]:
    """What one writes in torch: two whole Gram matrices in float64, of centered rows."""
    given = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def run() -> Mapping[str, torch.Tensor]:
        a, b = map(centered, given)
        K = scores(a, bandwidth_x).fill_diagonal_(0)
        L = scores(b, bandwidth_y).fill_diagonal_(0)
        inner = [torch.vdot(p.flatten(), q.flatten()) for p, q in ((K, K), (L, L), (K, L))]
        return {"cka": ratio(inner, K.sum(1), L.sum(1))}

    return run


def truth(x: np.ndarray, y: np.ndarray, bandwidths: Mapping[str, float] | None) -> torch.Tensor:
    """Return the value in float64, without a whole Gram matrix: linear without bandwidths, else RBF."""
    a, b = centered(torch.from_numpy(x)), centered(torch.from_numpy(y))
    return _linear(a, b) if bandwidths is None else _rbf(a, b, bandwidths["bandwidth_x"], bandwidths["bandwidth_y"])


def _linear(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the value from d x d products.

    The row sums of a centered Gram matrix are 0, so those of the matrix with zeros on the diagonal are minus the
    diagonal.
    """
    r, s = -a.square().sum(1), -b.square().sum(1)
    products = ((a, a, r @ r), (b, b, s @ s), (a, b, r @ s))
    return ratio([(p.T @ q).square().sum() - diagonal for p, q, diagonal in products], r, s)


def _rbf(a: torch.Tensor, b: torch.Tensor, bandwidth_x: float, bandwidth_y: float, tile: int = 1024) -> torch.Tensor:
    """Return the value from some rows of the Gram matrices at a time."""
    r, s = torch.zeros(len(a)).double(), torch.zeros(len(a)).double()
    inner = torch.zeros(3).double()
    for start in range(0, len(a), tile):
        rows = slice(start, start + tile)
        K, L = scores(a[rows], bandwidth_x, a), scores(b[rows], bandwidth_y, b)
        for matrix, sums in ((K, r), (L, s)):
            matrix.diagonal(start).zero_()
            sums[rows] = matrix.sum(1)
        inner += torch.stack([(p * q).sum() for p, q in ((K, K), (L, L), (K, L))])
    return ratio(list(inner), r, s)


def ratio(inner: Sequence[torch.Tensor], r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """Return CKA from matrices K and L with zeros on the diagonal (Song et al. 2012, theorem 5).

    Args:
        inner: The sums of K_ij K_ij, L_ij L_ij and K_ij L_ij.
        r: The row sums of K, [n].
        s: The row sums of L, [n].
    """
    n = len(r)
    xx, yy, xy = (
        pairs - 2 / (n - 2) * (p @ q) + p.sum() * q.sum() / ((n - 1) * (n - 2))
        for pairs, (p, q) in zip(inner, ((r, r), (s, s), (r, s)), strict=True)
    )
    return xy / (xx * yy).sqrt()


def centered(rows: torch.Tensor) -> torch.Tensor:
    """Return rows in float64, their mean subtracted."""
    return rows.double() - rows.double().mean(0)


def scores(x: torch.Tensor, bandwidth: float | None, y: torch.Tensor | None = None) -> torch.Tensor:
    """Return k(x_i, y_j) for all pairs, of x with itself without y: linear without a bandwidth, else RBF."""
    y = x if y is None else y
    if bandwidth is None:
        return x @ y.T
    return torch.cdist(x, y).square_().mul_(-0.5 / bandwidth**2).exp_()
