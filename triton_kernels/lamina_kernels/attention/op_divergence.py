"""The divergence of two attentions as operators that torch knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lamina_kernels.attention.op import once_only
from lamina_kernels.attention.op_arguments import (
    COUNT,
    GRADIENTS,
    empty_gradients,
    flat,
    packed,
    problem,
    schema,
    unpacked,
)
from lamina_kernels.attention.op_forms import form
from lamina_kernels.attention.problem import Divergences, Gradients, Known, Problem
from lamina_kernels.operators import keep, kept, operator, plainly, tensors

_SUMS = len(Divergences._fields)
_PROBLEMS = f"{schema()}, {schema('other_')}"


def divergence(first: Problem, second: Problem, kind: str, known: Known, name: str) -> torch.Tensor:
    """Return the divergence by a form, [B, H, Nq]; differentiable once in all that the problems hold.

    What is known of the log-sum-exps saves computing them. They are functions of the problems, so that the gradients,
    which are those of the whole, go to the problems alone.
    """
    return _divergence(*flat(first), *flat(second), *(known or (None, None)), kind, name)[0]


@operator(
    "attention_divergence", f"({_PROBLEMS}, Tensor? lse, Tensor? other_lse, str kind, str form) -> {tensors(_SUMS)}"
)
def _divergence(*arguments: Any) -> tuple[torch.Tensor, ...]:
    first, second, (lse, other_lse, kind, name) = _split(arguments)
    with plainly(first.q):
        known = None if lse is None else (lse, other_lse)
        return packed(form(name).divergence(first, second, kind, known), first.q)


@torch.library.register_fake(_divergence)
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    first = problem(arguments[:COUNT])
    return tuple(first.q.new_empty(first.q.shape[:3], dtype=first.dtype) for _ in range(_SUMS))


_given = ", ".join(f"Tensor found_{name}" for name in Divergences._fields)


@operator(
    "attention_divergence_backward",
    f"({_PROBLEMS}, {_given}, Tensor gradient, bool by_first, bool by_second, str kind, str form)"
    f" -> {tensors(2 * GRADIENTS)}",
)
def _backward(*arguments: Any) -> tuple[torch.Tensor, ...]:
    first, second, (*found, gradient, by_first, by_second, kind, name) = _split(arguments)
    with plainly(first.q):
        backward = form(name).divergence_backward
        return _packed(backward(first, second, kind, Divergences(*found), gradient, (by_first, by_second)), first.q)


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> tuple[torch.Tensor, ...]:
    first, second, (*_, by_first, by_second, _, _) = _split(arguments)
    both = [empty_gradients(p) if needed else None for p, needed in ((first, by_first), (second, by_second))]
    return _packed(both, first.q)


def _packed(both: Sequence[Gradients | None], like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x for each in both for x in packed(each or [None] * GRADIENTS, like))


def _split(arguments: tuple[Any, ...]) -> tuple[Problem, Problem, tuple[Any, ...]]:
    return problem(arguments[:COUNT]), problem(arguments[COUNT : 2 * COUNT]), arguments[2 * COUNT :]


def _differentiate(ctx: Any, *gradients: torch.Tensor | None) -> tuple[Any, ...]:
    inputs, output = kept(ctx)
    if gradients[0] is None:
        return (None,) * len(inputs)
    needed = [any(ctx.needs_input_grad[start : start + GRADIENTS]) for start in (0, COUNT)]
    found = unpacked(_backward(*inputs[: 2 * COUNT], *output, gradients[0], *needed, *inputs[-2:]))
    rest = [None] * (COUNT - GRADIENTS)
    return *found[:GRADIENTS], *rest, *found[GRADIENTS:], *rest, None, None, None, None


torch.library.register_autograd(_divergence, _differentiate, setup_context=keep)
torch.library.register_autograd(_backward, once_only)
