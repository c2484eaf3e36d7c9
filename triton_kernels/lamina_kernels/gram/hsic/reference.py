"""The obvious form: build both matrices, multiply, sum."""

from __future__ import annotations

import torch

from lamina_kernels.gram.hsic.problem import Problem
from lamina_kernels.gram.kernels import Distance, Kernel, Linear


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], from matrices in the dtype of the rows."""
    K = _matrix(problem.kernel_x, problem.x, problem.x_other).double()
    L = _matrix(problem.kernel_y, problem.y, problem.y_other).double()
    if problem.diagonal:
        itself = torch.eye(problem.n, dtype=torch.bool, device=K.device)
        K, L = K.masked_fill(itself, 0), L.masked_fill(itself, 0)
    groups = K.new_zeros(problem.m, dtype=torch.long) if problem.groups is None else problem.groups
    return problem.zeros().index_add(2, groups, torch.stack([K * L, K, L, K * K, L * L]))


def _matrix(kernel: Kernel, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return k(x_i, y_j) for all pairs, [n, m]."""
    if isinstance(kernel, Distance):
        return -torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    products = x @ y.T
    if isinstance(kernel, Linear):
        return products
    squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * products
    return torch.exp(squares.clamp(min=0) * -kernel.scale)
