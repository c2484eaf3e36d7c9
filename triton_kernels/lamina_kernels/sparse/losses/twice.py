"""Gradients of losses that have gradients themselves: of all rows at once, by the operators of decoding."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lamina_kernels.sparse.decoding import op
from lamina_kernels.sparse.losses import blocked
from lamina_kernels.sparse.losses.blocked import Gradients, Problem
from lamina_kernels.sparse.losses.prefixes import split
from lamina_kernels.tiles.rows import accumulation_dtype


def gradients(p: Problem, weights: Tensor, wanted: Sequence[bool], form: str) -> Gradients:
    """Return what `blocked.gradients` does, differentiable as often as asked; P n d residuals are held for it."""
    dtype = accumulation_dtype(p.target.dtype)
    of_values, of_dictionary, of_target, of_bias = wanted
    target = p.target.to(dtype)
    if p.given is not None:
        given = p.given._replace(values=p.given.values.detach())
        target = target - op.decode(given, p.dictionary.detach()[None], None, form)[:, 0]
    e, order = split(p.e, p.prefixes)
    sums = op.decode(e, p.dictionary[None], None, form).to(dtype).view(len(target), len(p.prefixes), -1)
    residuals = target[:, None] - sums.cumsum(1)
    residuals = residuals if p.bias is None else residuals - p.bias
    slopes = blocked.following(residuals * (-2 * weights)[None, :, None].to(dtype))
    flat = slopes.flatten(0, 1)[:, None].to(p.dictionary.dtype)
    values = op.products(flat, e.ids, e.offsets, p.dictionary[None], form) if of_values else None
    return Gradients(
        values if values is None or order is None else values[order.argsort()],
        op.by_unit(e, flat, len(p.dictionary), form)[0] if of_dictionary else None,
        -slopes[:, 0].to(p.target.dtype) if of_target else None,
        slopes[:, 0].sum(0).to(p.dictionary.dtype) if of_bias else None,
    )
