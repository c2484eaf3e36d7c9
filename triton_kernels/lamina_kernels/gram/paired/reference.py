"""The obvious form: build both matrices, multiply, sum."""

from __future__ import annotations

import torch

from lamina_kernels.gram.matrix import matrix
from lamina_kernels.gram.paired.problem import Problem


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], from matrices in float32, or float64 for float64."""
    K, L = (matrix(p).double() for p in problem.pairs)
    if problem.diagonal:
        itself = torch.eye(problem.n, dtype=torch.bool, device=K.device)
        K, L = K.masked_fill(itself, 0), L.masked_fill(itself, 0)
    groups = K.new_zeros(problem.m, dtype=torch.long) if problem.groups is None else problem.groups
    return problem.zeros().index_add(2, groups, torch.stack([K * L, K, L, K * K, L * L]))
