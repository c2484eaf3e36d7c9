"""Sums over the rows of y in plain torch, one tile of kernel values at a time, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_scores import ScoreGradients, Scores, block_of
from lamina_kernels.gram.functions import LOG2E, exp
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.tiles.rows import tiles

# 2 to this is 0 in float64 too, and 0 times it is 0, which is not so for -inf.
FAR = -1e4


class Weights(NamedTuple):
    """What turns kernel values into weights w_ij: nothing, or w_ij = exp(k_ij + log_weights_j - lse_i).

    Attributes:
        lse: [n], finite; None for w_ij = k_ij.
        log_weights: [m]; None for 0.
    """

    lse: Tensor | None = None
    log_weights: Tensor | None = None


class Found(NamedTuple):
    """Gradients of sums, in the dtypes of what they are gradients of."""

    x: Tensor
    y: Tensor
    parameters: Tensor
    v: Tensor
    log_weights: Tensor | None


def sums(p: Pairs, v: Tensor) -> Tensor:
    """Return sum_j k_ij v_j, [n, width of v], in the dtype of kernel values; tiles are summed in float64.

    Of a symmetric matrix, a tile above the diagonal serves as its mirror image too.
    """
    block = block_of(p)
    scores, v = Scores(p, block), v.to(p.dtype)
    total, symmetric = v.new_zeros(p.n, v.shape[1], dtype=torch.float64), p.symmetric
    for rows in tiles(p.n, block):
        scores.turn_to(rows)
        for columns in tiles(p.m, block):
            if symmetric and columns.start < rows.start:
                continue
            tile = scores.tile(columns)
            total[rows] += tile @ v[columns]
            if symmetric and columns != rows:
                total[columns] += tile.T @ v[rows]
    return total.to(p.dtype)


def softmax(p: Pairs, v: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows of v under the softmax of k_ij + log_weights_j over j, and its log-sum-exp.

    Sums are relative to the largest value so far, and shrink when it rises. A row that has no pair is 0, its log -inf.
    """
    block = block_of(p)
    scores, v = Scores(p, block), v.to(p.dtype)
    out, lse = v.new_empty(p.n, v.shape[1]), v.new_empty(p.n)
    terms = None if log_weights is None else log_weights.to(p.dtype)
    for rows in tiles(p.n, block):
        scores.turn_to(rows)
        count = rows.stop - rows.start
        top = v.new_full((count,), -torch.inf)
        mass = v.new_zeros(count, dtype=torch.float64)
        total = v.new_zeros(count, v.shape[1], dtype=torch.float64)
        for columns in tiles(p.m, block):
            k = scores.tile(columns, -torch.inf)
            if terms is not None:
                k += terms[columns]
            risen = torch.maximum(top, k.amax(1))
            start = risen.masked_fill(risen == -torch.inf, 0)
            decay = (top - start).double().clamp_min_(FAR).exp_()
            weights = k.sub_(start[:, None]).clamp_min_(FAR).mul_(LOG2E).exp2_()
            mass = mass * decay + weights.sum(1)
            total = total * decay[:, None] + weights @ v[columns]
            top = risen
        none = mass == 0
        out[rows] = (total / mass.masked_fill(none, 1)[:, None]).to(v.dtype)
        lse[rows] = torch.where(none, -torch.inf, mass.masked_fill(none, 1).log() + top).to(v.dtype)
    return out, lse


def gradients(p: Pairs, v: Tensor, weighing: Weights, g: Tensor) -> Found:
    """Return the gradients of sum_i <g_i, sum_j w_ij v_j>, as if lse were a constant.

    Args:
        p: The pairs.
        v: [m, width].
        weighing: What w_ij are.
        g: [n, width].
    """
    block = block_of(p)
    scores, found = Scores(p, block), ScoreGradients(p)
    rows_of_v, g = v.to(p.dtype), g.to(p.dtype)
    of_v = torch.zeros_like(rows_of_v, memory_format=torch.contiguous_format)
    terms = None if weighing.log_weights is None else weighing.log_weights.to(p.dtype)
    of_terms = None if terms is None else torch.zeros_like(terms)
    for rows in tiles(p.n, block):
        scores.turn_to(rows)
        for columns in tiles(p.m, block):
            down = g[rows] @ rows_of_v[columns].T
            if weighing.lse is None:
                of_v[columns].addmm_(scores.kept(columns).T, g[rows])
            else:
                k = scores.kept(columns, -torch.inf) - weighing.lse[rows, None]
                weights = exp((k if terms is None else k + terms[columns]).clamp_min_(FAR))
                of_v[columns].addmm_(weights.T, g[rows])
                down *= weights
                if of_terms is not None:
                    of_terms[columns] += down.sum(0)
            scores.pull(columns, down, found)
    return Found(
        found.x.to(p.x.dtype),
        found.y.to(p.y.dtype),
        found.by_leaf.to(p.parameters.dtype),
        of_v.to(v.dtype),
        of_terms if weighing.log_weights is None or of_terms is None else of_terms.to(weighing.log_weights.dtype),
    )
