"""Sums over the rows of y as operators that torch knows: differentiable twice, and compiled without a break.

The softmax has no gradients of its own: with lse and the output given, they are those of sums with the weights
exp(k_ij + log_weights_j - lse_i).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, unflat
from lamina_kernels.gram.sums import blocked_second
from lamina_kernels.gram.sums.blocked import Wanted, Weights, together
from lamina_kernels.gram.sums.op_forms import form
from lamina_kernels.gram.support import THRICE
from lamina_kernels.operators import keep, kept, operator, plainly, tensors
from lamina_kernels.refusals import refuse

_GRADIENTS = len(Wanted._fields)
_REST = "Tensor v, Tensor? lse, Tensor? log_weights, Tensor g, bool[] wanted"


def sums(p: Pairs, v: Tensor, name: str) -> Tensor:
    """Return sum_j k_ij v_j, [n, width of v], in the dtype of kernel values, by the form of this name."""
    return _sums(*flat(p), v, name)


def softmax(p: Pairs, v: Tensor, log_weights: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    """Return the means under a softmax, [n, width of v], and its log-sum-exp, [n]; see `blocked.softmax`."""
    return _softmax(*flat(p), v, log_weights, name)


def gradients(
    arguments: Sequence[Any], v: Tensor, weighing: Weights, g: Tensor, needed: Sequence[bool], name: str
) -> list[Tensor | None]:
    """Return the gradients of sum_i <g_i, sum_j w_ij v_j> that are needed, None for the others; they have gradients.

    Args:
        arguments: The pairs, as `flat` returns them.
        v: As of `blocked.gradients`, like all that follows.
        weighing: What w_ij are.
        g: [n, width of v].
        needed: Whether the gradient by x, y, parameters, v and log_weights is.
        name: The form's.
    """
    wanted = Wanted(*needed)
    if together(unflat(arguments), weighted=weighing.lse is not None):
        wanted = wanted._replace(x=wanted.x or wanted.y, y=False)
    if not any(wanted):
        return [None] * _GRADIENTS
    found = _backward(*arguments, v, *weighing, g, list(wanted), name)
    return [x if is_wanted else None for x, is_wanted in zip(found, wanted, strict=True)]


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
    p, (v, lse, log_weights, g, wanted, name) = unflat(arguments), arguments[COUNT:]
    with plainly(p.x):
        found = form(name, p).gradients(p, v, Weights(lse, log_weights), g, Wanted(*wanted))
    return tuple(v.new_empty(0) if x is None else x for x in found)


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    p, (v, _, log_weights, _, wanted, _) = unflat(arguments), arguments[COUNT:]
    held = p.x, p.y, p.parameters, v, log_weights
    return tuple(
        x.new_empty(x.shape) if is_wanted else v.new_empty(0) for x, is_wanted in zip(held, wanted, strict=True)
    )


class _Second(torch.autograd.Function):
    """Gradients of `_backward`'s results: they take torch's autograd, which an operator's implementation has not."""

    @staticmethod
    def forward(ctx: Any, needed: Sequence[bool], *arguments: Any) -> tuple[Tensor | None, ...]:
        """Take what `blocked_second.second` does: the arguments of `_backward`, and gradients of its results."""
        p, (v, lse, log_weights, g, _, _, *given) = unflat(arguments), arguments[COUNT:]
        with plainly(p.x):
            return tuple(blocked_second.second(p, v, Weights(lse, log_weights), g, given, needed))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Refuse."""
        refuse("gram", THRICE)


def _sums_gradients(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
    inputs, _ = kept(ctx)
    if g is None:
        return (None,) * len(inputs)
    *pairs, v, name = inputs
    needed = [*_of_pairs(ctx), ctx.needs_input_grad[COUNT], False]
    x, y, parameters, of_v, _ = gradients(pairs, v, Weights(), g, needed, name)
    return x, y, parameters, *([None] * (COUNT - 3)), of_v, None


def _softmax_gradients(ctx: Any, g: Tensor | None, g_lse: Tensor | None) -> tuple[Any, ...]:
    inputs, (out, lse) = kept(ctx)
    *pairs, v, log_weights, name = inputs
    # A row without pairs has weights 0 whatever stands for its -inf.
    lse = lse.masked_fill(lse == -torch.inf, 0)
    g = torch.zeros_like(out) if g is None else g
    own = -(g * out).sum(1, keepdim=True)
    own = own if g_lse is None else own + g_lse[:, None]
    ones = torch.ones(len(v), 1, dtype=out.dtype, device=v.device)
    needed = [*_of_pairs(ctx), *ctx.needs_input_grad[COUNT : COUNT + 2]]
    values, given = torch.cat([v.to(out.dtype), ones], 1), torch.cat([g, own], 1)
    x, y, parameters, of_v, of_weights = gradients(pairs, values, Weights(lse, log_weights), given, needed, name)
    of_v = None if of_v is None else of_v[:, :-1].to(v.dtype)
    return x, y, parameters, *([None] * (COUNT - 3)), of_v, of_weights, None


def _second_gradients(ctx: Any, *given: Tensor | None) -> tuple[Any, ...]:
    inputs, _ = kept(ctx)
    if all(each is None for each in given):
        return (None,) * len(inputs)
    of_x, of_y, *others = given
    if together(unflat(inputs), weighted=inputs[COUNT + 1] is not None):
        of_y = of_x
    needed = [*_of_pairs(ctx), *ctx.needs_input_grad[COUNT : COUNT + 4]]
    x, y, parameters, *rest = _Second.apply(needed, *inputs, of_x, of_y, *others)
    return x, y, parameters, *([None] * (COUNT - 3)), *rest, None, None


def _of_pairs(ctx: Any) -> Sequence[bool]:
    """Return whether the gradients by x, y and the parameters are needed."""
    return ctx.needs_input_grad[:3]


torch.library.register_autograd(_sums, _sums_gradients, setup_context=keep)
torch.library.register_autograd(_softmax, _softmax_gradients, setup_context=keep)
torch.library.register_autograd(_backward, _second_gradients, setup_context=keep)
