"""Log-sum-exps of kernel values along rows and along columns as an operator that torch knows: differentiable twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, unflat
from lamina_kernels.gram.sums.blocked import Weights
from lamina_kernels.gram.sums.op import gradients
from lamina_kernels.gram.sums.op_forms import form
from lamina_kernels.operators import keep, kept, operator, plainly, tensors


def sides(p: Pairs, name: str) -> tuple[Tensor, Tensor]:
    """Return log sum_j exp(k_ij), [n], and log sum_i exp(k_ij), [m], by the form of this name."""
    return _sides(*flat(p), name)


@operator("gram_sides", f"({SCHEMA}, str form) -> {tensors(2)}")
def _sides(*arguments: Any) -> tuple[Tensor, Tensor]:
    p = unflat(arguments)
    with plainly(p.x):
        return form(arguments[-1], p).sides(p)


@torch.library.register_fake(_sides)
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    p = unflat(arguments)
    return p.x.new_empty(p.n, dtype=p.dtype), p.x.new_empty(p.m, dtype=p.dtype)


def _gradients(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    (*pairs, name), found = kept(ctx)
    x, y, parameters = ctx.needs_input_grad[:3]
    whole: list[Tensor | None] = [None] * 3
    for g, lse, turned in zip(given, found, (False, True), strict=True):
        if g is None:
            continue
        held = flat(unflat(pairs).swapped) if turned else pairs
        needed = [y, x, parameters] if turned else [x, y, parameters]
        ones = torch.ones_like(found[0 if turned else 1])[:, None]
        one, other, of_parameters, *_ = gradients(held, ones, Weights(lse), g[:, None], [*needed, False, False], name)
        made = [other, one, of_parameters] if turned else [one, other, of_parameters]
        whole = [b if a is None else a + b if b is not None else a for a, b in zip(whole, made, strict=True)]
    return *whole, *([None] * (COUNT - 2))


torch.library.register_autograd(_sides, _gradients, setup_context=keep)
