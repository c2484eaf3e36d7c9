"""Sums over the rows of y as operators that torch knows: differentiable twice, and compiled without a break.

The softmax has no gradients of its own: with lse and the output given, they are those of sums with the weights
exp(k_ij + log_weights_j - lse_i).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, unflat
from lamina_kernels.gram.sums import blocked_second
from lamina_kernels.gram.sums.blocked import Weights
from lamina_kernels.gram.sums.op_forms import form
from lamina_kernels.gram.support import THRICE
from lamina_kernels.operators import keep, kept, operator, plainly, tensors
from lamina_kernels.refusals import refuse

_GRADIENTS = 5
_REST = "Tensor v, Tensor? lse, Tensor? log_weights, Tensor g"


def sums(p: Pairs, v: Tensor, name: str) -> Tensor:
    """Return sum_j k_ij v_j, [n, width of v], in the dtype of kernel values, by the form of this name."""
    return _sums(*flat(p), v, name)


def softmax(p: Pairs, v: Tensor, log_weights: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    """Return the means under a softmax, [n, width of v], and its log-sum-exp, [n]; see `blocked.softmax`."""
    return _softmax(*flat(p), v, log_weights, name)


def gradients(p: Pairs, v: Tensor, g: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of sum_i <g_i, sum_j k_ij v_j> by x, y and the parameters, which have gradients too."""
    return _backward(*flat(p), v, None, None, g, name)[:3]


@operator("gram_sums", f"({SCHEMA}, Tensor v, str form) -> Tensor")
def _sums(*arguments: Any) -> Tensor:
    p, v = unflat(arguments), arguments[COUNT]
    with plainly(p.x):
        return form(arguments[-1], p).sums(p, v)


@torch.library.register_fake(_sums)
def _(*arguments: Any) -> Tensor:
    p, v = unflat(arguments), arguments[COUNT]
    return v.new_empty(p.n, v.shape[1], dtype=p.dtype)


@operator("gram_softmax", f"({SCHEMA}, Tensor v, Tensor? log_weights, str form) -> {tensors(2)}")
def _softmax(*arguments: Any) -> tuple[Tensor, Tensor]:
    p, (v, log_weights, name) = unflat(arguments), arguments[COUNT:]
    with plainly(p.x):
        return form(name, p).softmax(p, v, log_weights)


@torch.library.register_fake(_softmax)
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    p, v = unflat(arguments), arguments[COUNT]
    return v.new_empty(p.n, v.shape[1], dtype=p.dtype), v.new_empty(p.n, dtype=p.dtype)


@operator("gram_sums_backward", f"({SCHEMA}, {_REST}, str form) -> {tensors(_GRADIENTS)}")
def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    p, (v, lse, log_weights, g, name) = unflat(arguments), arguments[COUNT:]
    with plainly(p.x):
        found = form(name, p).gradients(p, v, Weights(lse, log_weights), g)
    return tuple(v.new_empty(0) if x is None else x for x in found)


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    p, (v, _, log_weights, *_) = unflat(arguments), arguments[COUNT:]
    held = p.x, p.y, p.parameters, v, v.new_empty(0) if log_weights is None else log_weights
    return tuple(x.new_empty(x.shape) for x in held)


class _Second(torch.autograd.Function):
    """Gradients of `_backward`'s results: they take torch's autograd, which an operator's implementation has not."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Take the arguments of `_backward` and a gradient, or None, for each of its results."""
        p, (v, lse, log_weights, g, _, *given) = unflat(arguments), arguments[COUNT:]
        with plainly(p.x):
            return tuple(blocked_second.second(p, v, Weights(lse, log_weights), g, given))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Refuse."""
        refuse("gram", THRICE)


def _sums_gradients(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
    inputs, _ = kept(ctx)
    if g is None:
        return (None,) * len(inputs)
    *pairs, v, name = inputs
    x, y, parameters, v, _ = _backward(*pairs, v, None, None, g, name)
    return x, y, parameters, *([None] * (COUNT - 3)), v, None


def _softmax_gradients(ctx: Any, g: Tensor | None, g_lse: Tensor | None) -> tuple[Any, ...]:
    inputs, (out, lse) = kept(ctx)
    *pairs, v, log_weights, name = inputs
    # A row without pairs has weights 0 whatever stands for its -inf.
    lse = lse.masked_fill(lse == -torch.inf, 0)
    g = torch.zeros_like(out) if g is None else g
    own = -(g * out).sum(1, keepdim=True)
    own = own if g_lse is None else own + g_lse[:, None]
    ones = torch.ones(len(v), 1, dtype=out.dtype, device=v.device)
    found = _backward(*pairs, torch.cat([v.to(out.dtype), ones], 1), lse, log_weights, torch.cat([g, own], 1), name)
    x, y, parameters, of_v, of_weights = found
    of_v = of_v[:, :-1].to(v.dtype)
    return x, y, parameters, *([None] * (COUNT - 3)), of_v, None if log_weights is None else of_weights, None


def _second_gradients(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    inputs, _ = kept(ctx)
    *_, lse, log_weights, _, _ = inputs
    # The gradient of what is not there has no elements.
    kept_given = [*given[:4], None if log_weights is None else given[4]]
    if all(each is None for each in kept_given):
        return (None,) * len(inputs)
    x, y, parameters, v, of_lse, of_weights, g = _Second.apply(*inputs, *kept_given)
    of_lse, of_weights = None if lse is None else of_lse, None if log_weights is None else of_weights
    return x, y, parameters, *([None] * (COUNT - 3)), v, of_lse, of_weights, g, None


torch.library.register_autograd(_sums, _sums_gradients, setup_context=keep)
torch.library.register_autograd(_softmax, _softmax_gradients, setup_context=keep)
torch.library.register_autograd(_backward, _second_gradients, setup_context=keep)
