"""The first pass of attention as operators that torch knows: differentiable, and compiled without a break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention.op_arguments import (
    COUNT,
    GRADIENTS,
    empty_gradients,
    empty_sums,
    flat,
    packed,
    problem,
    schema,
    unpacked,
)
from lamina_kernels.attention.op_forms import form
from lamina_kernels.attention.problem import Problem, Sums
from lamina_kernels.attention.support import TWICE
from lamina_kernels.operators import keep, kept, operator, plainly, tensors
from lamina_kernels.refusals import refuse

_SUMS = len(Sums._fields)


def attend(p: Problem, name: str) -> Sums:
    """Run the first pass of a form; differentiable once in all that the problem holds but `columns`."""
    sums = Sums(*unpacked(_attend(*flat(p), name)))
    return sums if sums.top_scores is None else sums._replace(top_scores=sums.top_scores.detach())


@operator("attend", f"({schema()}, str form) -> {tensors(_SUMS)}")
def _attend(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p = problem(arguments[:-1])
    with plainly(p.q):
        return packed(form(arguments[-1]).forward(p), p.q)


@torch.library.register_fake(_attend)
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p = problem(arguments[:-1])
    return packed(empty_sums(p), p.q)


_given = ", ".join(f"Tensor? {prefix}{name}" for prefix in ("found_", "gradient_") for name in Sums._fields)


@operator("attend_backward", f"({schema()}, {_given}, str form) -> {tensors(GRADIENTS)}")
def _backward(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p, name = problem(arguments[:COUNT]), arguments[-1]
    found, gradients = (Sums(*unpacked(arguments[start : start + _SUMS])) for start in (COUNT, COUNT + _SUMS))
    with plainly(p.q):
        if gradients.max is not None and found.argmax is None:
            # The gradient goes to the key of the largest score, which a pass of less than tier 2 does not look for.
            argmax = form(name).forward(replace(p, v=p.v[..., :0], tier=2, topk=0, columns=None)).argmax
            found = found._replace(argmax=argmax)
        return packed(form(name).backward(p, found, gradients), p.q)


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    p = problem(arguments[:COUNT])
    return packed(empty_gradients(p), p.q)


def backward(p: Problem, found: Sums, gradients: Sums, name: str) -> list[torch.Tensor | None]:
    """Return the gradients by all that the problem holds, in the order of `Gradients`; nothing differentiates them."""
    return unpacked(_backward(*flat(p), *found, *gradients, name))


def _differentiate(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
    inputs, output = kept(ctx)
    found = _backward(*inputs[:-1], *output, *gradients, inputs[-1])
    return *unpacked(found), *([None] * (len(inputs) - GRADIENTS))


def once_only(ctx: Any, *gradients: torch.Tensor | None) -> Any:
    """Stand in for the gradients of gradients."""
    refuse("attend", TWICE)


torch.library.register_autograd(_attend, _differentiate, setup_context=keep)
torch.library.register_autograd(_backward, once_only)
