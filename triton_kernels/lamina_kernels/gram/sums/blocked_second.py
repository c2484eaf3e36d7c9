"""Gradients of gradients of sums: the obvious form, one tile at a time, differentiated twice by torch itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lamina_kernels.gram.matrix import values
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums.blocked import Weights
from lamina_kernels.gram.terms import leaves
from lamina_kernels.tiles.rows import tiles

# Numbers of a tile: differences of rows, which distances are made of, hold one a dimension.
_NUMBERS = 2**21
_LARGEST = 256


def second(p: Pairs, v: Tensor, weighing: Weights, g: Tensor, given: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the gradients of sum <given, what `blocked.gradients` returns>.

    Args:
        p: The pairs.
        v: [m, width].
        weighing: What w_ij are.
        g: [n, width].
        given: The gradients of x's, y's, the parameters', v's and log_weights' gradient; None where none came.

    Returns:
        By x, y, parameters, v, lse, log_weights and g.
    """
    zeros = v.new_zeros(1, dtype=p.dtype)
    lse = zeros.expand(p.n) if weighing.lse is None else weighing.lse
    terms = zeros.expand(p.m) if weighing.log_weights is None else weighing.log_weights
    held = [p.x, p.y, p.parameters, v, lse, terms, g]
    found = [torch.zeros(x.shape, dtype=p.dtype, device=x.device) for x in held]
    block = block_of([p])
    for rows in tiles(p.n, block):
        for columns in tiles(p.m, block):
            places = [rows, columns, slice(None), columns, rows, columns, rows]
            part = [x[place].detach().to(p.dtype).requires_grad_() for x, place in zip(held, places, strict=True)]
            down = [None if x is None else x[place].to(p.dtype) for x, place in zip(given, places[:4], strict=False)]
            down.append(None if given[4] is None else given[4][columns].to(p.dtype))
            with torch.enable_grad():
                whole = _sum(p, rows, columns, part, weighted=weighing.lse is not None)
                inner = [part[i] for i in (0, 1, 2, 3, 5)]
                each = twice(whole, inner, down, part)
            for whole_gradient, place, x in zip(found, places, each, strict=True):
                if x is not None:
                    whole_gradient[place] += x
    return [x.to(like.dtype) for x, like in zip(found, held, strict=True)]


def _sum(p: Pairs, rows: slice, columns: slice, part: Sequence[Tensor], *, weighted: bool) -> Tensor:
    """Return sum_i <g_i, sum_j w_ij v_j> of a tile."""
    x, y, parameters, v, lse, terms, g = part
    place, other = (torch.arange(span.start, span.stop, device=x.device) for span in (rows, columns))
    diagonal = place[:, None] == other
    k = values(p.tree, x, y, parameters, diagonal if p.same else None)
    if weighted:
        k = torch.exp(k + terms - lse[:, None])
    if p.apart:
        k = k.masked_fill(diagonal, 0)
    if p.x_groups is not None and p.y_groups is not None:
        k = k.masked_fill(p.x_groups[rows, None] == p.y_groups[columns], 0)
    return ((k @ v) * g).sum()


def twice(
    whole: Tensor, inner: Sequence[Tensor], given: Sequence[Tensor | None], by: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Return the gradients of sum <given, gradients of a number by `inner`>; None for what it does not depend on."""
    first = torch.autograd.grad(whole, inner, create_graph=True, materialize_grads=True)
    pairs = zip(first, given, strict=True)
    product = torch.stack([(x * d).sum() for x, d in pairs if d is not None]).sum()
    return torch.autograd.grad(product, by, allow_unused=True)


def block_of(pairs: Sequence[Pairs]) -> int:
    """Return the most rows of a tile of all these kernels."""
    widths = [max([1, *(leaf.stop - leaf.start for leaf in leaves(p.tree) if leaf.base == "norm")]) for p in pairs]
    return min(_LARGEST, max(1, math.isqrt(_NUMBERS // sum(widths))))
