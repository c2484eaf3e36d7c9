"""The obvious form of the sums: all kernel values at once, differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.dependence.estimator import Sums, biased_matrix, debiased_matrix, ids_of
from lamina_kernels.gram.dependence.layers import Layers, centered
from lamina_kernels.gram.matrix import matrix


def hsic(layers: Layers) -> Tensor:
    """Return HSIC of any two representations, [k, k] float64, by the sums of `estimator` as they stand there."""
    k = torch.stack([matrix(centered(p)).double() for p in layers.pairs])
    if layers.diagonal:
        return biased_matrix(torch.einsum("aij,bij->ab", k, k), k.sum(2))
    n, sizes = layers.n, layers.sizes
    sizes = torch.ones(n, dtype=torch.long, device=k.device) if sizes is None else sizes
    ids = ids_of(sizes, n)
    u_groups = sizes.double()
    u, members = u_groups[ids], (ids[:, None] == torch.arange(len(sizes), device=k.device)).double()
    k = k.masked_fill(ids[:, None] == ids, 0)
    weights = (n - u[:, None] - u) ** 2 - sizes.square().sum() + u[:, None] ** 2 + u**2
    of_groups = k @ members
    cells = members.T @ of_groups
    sums = Sums(
        torch.einsum("aij,ij,bij->ab", k, weights, k),
        k.sum(2),
        k @ u,
        torch.einsum("aig,ig,big->ab", of_groups, n - u[:, None] - 2 * u_groups, of_groups),
        torch.einsum("agh,bgh->ab", cells, cells),
    )
    return debiased_matrix(sums, sizes)
