"""Gradients of HSIC by both sets of rows: by `hsic_sums`, by torch through whole matrices, and in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lamina_kernels import gram

Gradients = Mapping[str, Tensor]
Form = Literal["reference", "blocked", "triton"]


def op(x: np.ndarray, y: np.ndarray, *, device: str, kernel: str, impl: Form) -> Callable[[], Gradients]:
    """`lamina_kernels.gram.hsic_sums` in one of its forms, differentiated."""
    k, leaves = kernel_of(kernel, x.shape[1]), leaves_of(x, y, device)

    def run() -> Gradients:
        sums = gram.hsic_sums(*leaves, kernel_x=k, kernel_y=k, impl=impl)
        assert sums.impl == impl
        return pulled(hsic(sums.product, sums.sums_x, sums.sums_y), leaves)

    return run


def dense(x: np.ndarray, y: np.ndarray, *, device: str, kernel: str) -> Callable[[], Gradients]:
    """What one writes in torch: two matrices in float32, which its autograd goes back through."""
    leaves = leaves_of(x, y, device)

    def run() -> Gradients:
        K, L = (scores(rows, rows, kernel) for rows in leaves)
        itself = torch.eye(len(K), dtype=torch.bool, device=device)
        K, L = K.masked_fill(itself, 0), L.masked_fill(itself, 0)
        return pulled(hsic((K * L).sum(1), K.sum(1), L.sum(1)), leaves)

    return run


def truth(x: np.ndarray, y: np.ndarray, *, kernel: str, device: str, tile: int = 1024) -> Gradients:
    """The gradients in float64, some rows at a time: HSIC has those of a sum of K_ij c_ij, with c from L, and so on."""
    a, b = (rows.detach().double().requires_grad_() for rows in leaves_of(x, y, device))
    n = len(a)
    with torch.no_grad():
        r, s = (torch.cat([_part(rows, start, tile, kernel).sum(1) for start in range(0, n, tile)]) for rows in (a, b))
    for start in range(0, n, tile):
        K, L = (_part(rows, start, tile, kernel) for rows in (a, b))
        at = slice(start, start + tile)
        for matrix, other, sums in ((K, L, s), (L, K, r)):
            c = other.detach() - 2 / n * sums[at, None] + sums.sum() / n**2
            (matrix * c).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    return {"x": a.grad, "y": b.grad}


def _part(rows: Tensor, start: int, tile: int, kernel: str) -> Tensor:
    """Return some rows of a kernel's matrix, with zeros on its diagonal."""
    part = scores(rows[start : start + tile], rows, kernel)
    itself = torch.zeros_like(part, dtype=torch.bool)
    itself.diagonal(start).fill_(True)
    return part.masked_fill(itself, 0)


def hsic(product: Tensor, sums_x: Tensor, sums_y: Tensor) -> Tensor:
    """Return n^2 times the biased HSIC of matrices with zeros on their diagonals."""
    n = len(product)
    return product.sum() - 2 / n * (sums_x @ sums_y) + sums_x.sum() * sums_y.sum() / n**2


def pulled(value: Tensor, leaves: tuple[Tensor, Tensor]) -> Gradients:
    """Return the gradients of a value by both sets of rows."""
    return dict(zip("xy", torch.autograd.grad(value, leaves), strict=True))


def leaves_of(x: np.ndarray, y: np.ndarray, device: str) -> tuple[Tensor, Tensor]:
    """Return rows that gradients are asked of."""
    a, b = (torch.from_numpy(rows).to(device).requires_grad_() for rows in (x, y))
    return a, b


def scores(x: Tensor, y: Tensor, kernel: str) -> Tensor:
    """Return k(x_i, y_j) for all pairs, as torch can differentiate it."""
    if kernel == "linear":
        return x @ y.T
    return (torch.cdist(x, y).square() * (-0.5 / bandwidth(x.shape[1]) ** 2)).exp()


def kernel_of(kernel: str, d: int) -> gram.Linear | gram.RBF:
    """Return the kernel of a name."""
    return gram.Linear() if kernel == "linear" else gram.RBF(bandwidth(d))


def bandwidth(d: int) -> float:
    """Return a bandwidth at which the kernel of two independent rows of `hsic_sums.paired` is about exp(-1)."""
    return (2 * d) ** 0.5
