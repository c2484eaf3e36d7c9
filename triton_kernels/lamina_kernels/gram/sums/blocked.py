"""Sums over the rows of y in plain torch, one tile of kernel values at a time, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_bases import Gradients
from lamina_kernels.gram.blocked_scores import Scores, block_of
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


class Wanted(NamedTuple):
    """Which gradients of sums are wanted.

    Where both sides are one set of rows whose pairs count alike both ways, and w_ij = k_ij, there is one gradient of
    these rows, which is x's: a pair and its mirror image then cost what one of them does. See `together`.
    """

    x: bool
    y: bool
    parameters: bool
    v: bool = False
    log_weights: bool = False


class Found(NamedTuple):
    """Gradients of sums, in the dtypes of what they are gradients of; None for what is not wanted."""

    x: Tensor | None
    y: Tensor | None
    parameters: Tensor | None
    v: Tensor | None
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


def together(p: Pairs, *, weighted: bool) -> bool:
    """Return whether there is one gradient of the rows of both sides, see `Wanted`; weights of a softmax have two."""
    return p.symmetric and not weighted


def gradients(p: Pairs, v: Tensor, weighing: Weights, g: Tensor, wanted: Wanted) -> Found:
    """Return the gradients of sum_i <g_i, sum_j w_ij v_j> that are wanted, as if lse were a constant.

    Args:
        p: The pairs.
        v: [m, width].
        weighing: What w_ij are.
        g: [n, width].
        wanted: Which.
    """
    block, weighted = block_of(p), weighing.lse is not None
    mirrored, pulled = together(p, weighted=weighted), wanted.x or wanted.y or wanted.parameters
    scores, found = Scores(p, block), Gradients.zeros(p, x=wanted.x, y=wanted.y, parameters=wanted.parameters)
    into = found._replace(y=found.x) if mirrored else found
    factors, g = v.to(p.dtype), g.to(p.dtype)
    of_v = torch.zeros_like(factors, memory_format=torch.contiguous_format) if wanted.v else None
    terms = None if weighing.log_weights is None else weighing.log_weights.to(p.dtype)
    of_terms = factors.new_zeros(p.m) if wanted.log_weights else None
    for rows in tiles(p.n, block):
        scores.turn_to(rows)
        for columns in tiles(p.m, block):
            if mirrored and columns.start < rows.start:
                continue
            twice = mirrored and columns != rows
            weights = (scores.kept if pulled else scores.tile)(columns, -torch.inf if weighted else 0.0)
            if weighing.lse is not None:
                weights = weights - weighing.lse[rows, None]
                weights = exp((weights if terms is None else weights + terms[columns]).clamp_min_(FAR))
            if of_v is not None:
                of_v[columns].addmm_(weights.T, g[rows])
                if twice:
                    of_v[rows].addmm_(weights, g[columns])
            if not pulled and of_terms is None:
                continue
            down = g[rows] @ factors[columns].T
            if twice:
                down.addmm_(factors[rows], g[columns].T)
            if weighted:
                down *= weights
            if of_terms is not None:
                of_terms[columns] += down.sum(0)
            if pulled:
                scores.pull(columns, down, into)
    made = found.x, found.y, found.by_leaf, of_v, of_terms
    held = p.x, p.y, p.parameters, v, weighing.log_weights
    return Found(*(x if x is None or like is None else x.to(like.dtype) for x, like in zip(made, held, strict=True)))
