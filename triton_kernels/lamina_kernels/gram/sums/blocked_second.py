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


# Where x, y, parameters, v and log_weights stand among what gradients of gradients are by.
_INNER = (0, 1, 2, 3, 5)


def second(
    p: Pairs, v: Tensor, weighing: Weights, g: Tensor, given: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients of sum <given, gradients that `blocked.gradients` returns>, None for what is not needed.

    Args:
        p: The pairs.
        v: [m, width].
        weighing: What w_ij are.
        g: [n, width].
        given: The gradients of x's, y's, the parameters', v's and log_weights' gradient; None where none came.
        needed: Whether those by x, y, parameters, v, lse, log_weights and g are.

    Returns:
        By these.
    """
    zeros = v.new_zeros(1, dtype=p.dtype)
    lse = zeros.expand(p.n) if weighing.lse is None else weighing.lse
    terms = zeros.expand(p.m) if weighing.log_weights is None else weighing.log_weights
    held = [p.x, p.y, p.parameters, v, lse, terms, g]
    asked = [place for place, is_needed in enumerate(needed) if is_needed]
    found = {i: torch.zeros(held[i].shape, dtype=p.dtype, device=held[i].device) for i in asked}
    block = block_of([p])
    for rows in tiles(p.n, block):
        for columns in tiles(p.m, block):
            places = [rows, columns, slice(None), columns, rows, columns, rows]
            part = [x[place].detach().to(p.dtype).requires_grad_() for x, place in zip(held, places, strict=True)]
            down = [None if x is None else x[place].to(p.dtype) for x, place in zip(given, places[:4], strict=False)]
            down.append(None if given[4] is None else given[4][columns].to(p.dtype))
            with torch.enable_grad():
                whole = _sum(p, rows, columns, part, weighted=weighing.lse is not None)
                each = twice(whole, [part[i] for i in _INNER], down, [part[i] for i in asked])
            for i, x in zip(asked, each, strict=True):
                if x is not None:
                    found[i][places[i]] += x
    return [found[i].to(like.dtype) if i in found else None for i, like in enumerate(held)]


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
    pulled = [(x, d) for x, d in zip(inner, given, strict=True) if d is not None]
    first = torch.autograd.grad(whole, [x for x, _ in pulled], create_graph=True, materialize_grads=True)
    product = torch.stack([(x * d).sum() for x, (_, d) in zip(first, pulled, strict=True)]).sum()
    if not product.requires_grad:
        return [None] * len(by)
    return torch.autograd.grad(product, by, allow_unused=True)


def block_of(pairs: Sequence[Pairs]) -> int:
    """Return the most rows of a tile of all these kernels."""
    widths = [max([1, *(leaf.stop - leaf.start for leaf in leaves(p.tree) if leaf.base == "norm")]) for p in pairs]
    return min(_LARGEST, max(1, math.isqrt(_NUMBERS // sum(widths))))
