"""Sums of squared residuals as an operator that torch knows: compiled without a break, differentiable without end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.operators import keep, kept, operator, plainly, tensors
from lamina_kernels.sparse.decoding.entries import Entries, demand_atoms
from lamina_kernels.sparse.decoding.passes import passes
from lamina_kernels.sparse.losses import blocked, twice
from lamina_kernels.sparse.losses.blocked import Problem

_SCHEMA = (
    "Tensor values, Tensor ids, Tensor offsets, Tensor dictionary, Tensor target, Tensor? bias, "
    "Tensor? given_values, Tensor? given_ids, Tensor? given_offsets, int[] prefixes"
)
_COUNT = 10


def squares(p: Problem, form: str) -> tuple[Tensor, Tensor]:
    """Return the sum of squared residuals of each prefix, [P] float64, and of the target around its mean."""
    given = (None, None, None) if p.given is None else p.given
    return _squares(*p.e, p.dictionary, p.target, p.bias, *given, p.prefixes, form)


def _problem(held: Sequence[Any]) -> Problem:
    *entries, dictionary, target, bias = held[:6]
    given = None if held[6] is None else Entries(*held[6:9])
    return Problem(Entries(*entries), dictionary, target, bias, given, held[9])


def _plain(arguments: Sequence[Any]) -> Problem:
    return _problem([x.detach() if isinstance(x, Tensor) else x for x in arguments[:_COUNT]])


@operator("sparse_squares", f"({_SCHEMA}, str form) -> {tensors(2)}")
def _squares(*arguments: Any) -> tuple[Tensor, Tensor]:
    p = _plain(arguments)
    demand_atoms(p.e.ids, len(p.dictionary))
    if p.given is not None:
        demand_atoms(p.given.ids, len(p.dictionary))
    with plainly(p.target):
        return blocked.squares(p, passes(arguments[-1]))


@torch.library.register_fake(_squares)
def _(*arguments: Any) -> tuple[Tensor, Tensor]:
    target, prefixes = arguments[4], arguments[_COUNT - 1]
    found = target.new_empty(len(prefixes), dtype=torch.float64)
    return found, found.new_empty(())


@operator("sparse_squares_backward", f"({_SCHEMA}, Tensor weights, bool[] wanted, str form) -> {tensors(4)}")
def _backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    p, (weights, wanted, form) = _plain(arguments), arguments[_COUNT:]
    with plainly(p.target):
        found = blocked.gradients(p, weights, wanted, passes(form))
    values, dictionary, target, bias = (p.target.new_empty(0) if x is None else x for x in found)
    return values, dictionary, target, bias


@torch.library.register_fake(_backward)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    values, _, _, dictionary, target, bias = arguments[:6]
    wanted = arguments[_COUNT + 1]
    held = values, dictionary, target, bias
    return tuple(
        x.new_empty(x.shape) if is_wanted else target.new_empty(0) for x, is_wanted in zip(held, wanted, strict=True)
    )


def _gradients(ctx: Any, g: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    *inputs, form = kept(ctx)[0]
    if g is None:
        return (None,) * (_COUNT + 1)
    places = (0, 3, 4, 5)
    wanted = [ctx.needs_input_grad[place] for place in places]
    if torch.is_grad_enabled():
        found = twice.gradients(_problem(inputs), g, wanted, form)
    else:
        found = _backward(*inputs, g, wanted, form)
    gradients: list[Any] = [None] * (_COUNT + 1)
    for place, is_wanted, value in zip(places, wanted, found, strict=True):
        gradients[place] = value if is_wanted else None
    return tuple(gradients)


torch.library.register_autograd(_squares, _gradients, setup_context=keep)
