"""The obvious form of sums: all kernel values at once, differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.matrix import hidden, matrix
from lamina_kernels.gram.pairs import Pairs


def sums(p: Pairs, v: Tensor) -> Tensor:
    """Return sum_j k_ij v_j, [n, width of v]."""
    k, out = matrix(p), hidden(p)
    return (k if out is None else k.masked_fill(out, 0)) @ v.to(p.dtype)


def sides(p: Pairs) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exps of k_ij along rows, [n], and along columns, [m]."""
    k = matrix(p)
    return k.logsumexp(1), k.logsumexp(0)


def softmax(p: Pairs, v: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows of v under the softmax of k_ij + log_weights_j over j, and its log-sum-exp."""
    k, out = matrix(p), hidden(p)
    if log_weights is not None:
        k = k + log_weights.to(p.dtype)
    if out is not None:
        k = k.masked_fill(out, -torch.inf)
    lse = k.logsumexp(1) if p.m else k.new_full((p.n,), -torch.inf)
    weights = (k - lse.masked_fill(lse == -torch.inf, 0)[:, None]).exp()
    return weights @ v.to(p.dtype), lse
