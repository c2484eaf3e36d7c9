"""The sums of two kernels as operators that torch knows: compiled without a break, differentiable twice.

Each sum is one of a product of kernels over the same pairs, whose gradients are those of `sums`: only its value is
known already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.paired import blocked, moments
from lamina_kernels.gram.paired.problem import SUMS, Problem
from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, schema, unflat
from lamina_kernels.gram.sums.blocked import Weights
from lamina_kernels.gram.sums.op import gradients
from lamina_kernels.gram.terms import Branch, Node, encoded
from lamina_kernels.operators import keep, kept, operator, plainly

_PROBLEM = f"{schema('x_')}, {schema('y_')}, Tensor? groups, SymInt n_groups, bool diagonal"


def hsic_sums(problem: Problem, form: str) -> Sequence[Tensor]:
    """Return the five sums, [n, n_groups] float64 each, with gradients where they are wanted."""
    if form == "blocked" and problem.wants_gradients and problem.groups is None and moments.cheaper(problem):
        # A few products of matrices, through which torch goes back; pairs of rows would cost what moments spare.
        return moments.hsic_sums(problem).unbind()
    pairs = (replace(p, x=p.x.detach(), y=p.y.detach(), parameters=p.parameters.detach()) for p in problem.pairs)
    flags = problem.groups, problem.n_groups, problem.diagonal
    found = _sums(*(argument for p in pairs for argument in flat(p)), *flags, form).unbind()
    return _differentiable(problem, found, form) if problem.wants_gradients else found


def _differentiable(problem: Problem, found: Sequence[Tensor], form: str) -> Sequence[Tensor]:
    x, y = (replace(p, apart=problem.diagonal) for p in problem.pairs)
    products = _product(x, y), x, y, _product(x, x), _product(y, y)
    v = torch.ones(problem.m, 1, dtype=x.dtype, device=x.x.device)
    if problem.groups is not None:
        v = (problem.groups[:, None] == torch.arange(problem.n_groups, device=v.device)).to(x.dtype)
    return [_known(value, *flat(p), v, form) for value, p in zip(found, products, strict=True)]


def _product(a: Pairs, b: Pairs) -> Pairs:
    """Return the pairs of rows side by side, under the product of their kernels; of a kernel's square once."""
    parameters = torch.cat([a.parameters, b.parameters])
    if b is a:
        node = Branch("*", a.tree, _moved(b.tree, 0, len(a.parameters)))
        return replace(a, parameters=parameters, code=encoded(node))
    node, same = Branch("*", a.tree, _moved(b.tree, a.x.shape[1], len(a.parameters))), a.same and b.same
    x = torch.cat([a.x, b.x], 1)
    y = x if same else torch.cat([a.y, b.y], 1)
    return replace(a, x=x, y=y, parameters=parameters, code=encoded(node), same=same)


def _moved(node: Node, columns: int, places: int) -> Node:
    """Return a tree whose rows and parameters stand behind others."""
    if isinstance(node, Branch):
        return Branch(node.operator, _moved(node.left, columns, places), _moved(node.right, columns, places))
    return node._replace(start=node.start + columns, stop=node.stop + columns, place=node.place + places)


@operator("gram_hsic_sums", f"({_PROBLEM}, str form) -> Tensor")
def _sums(*arguments: Any) -> Tensor:
    problem = _problem(arguments)
    with plainly(problem.of_x.x):
        return _form(arguments[-1])(problem)


@torch.library.register_fake(_sums)
def _(*arguments: Any) -> Tensor:
    problem = _problem(arguments)
    return problem.of_x.x.new_empty(SUMS, problem.n, problem.n_groups, dtype=torch.float64)


def _problem(arguments: Sequence[Any]) -> Problem:
    return Problem(unflat(arguments), unflat(arguments[COUNT:]), *arguments[2 * COUNT : -1])


def _form(name: str) -> Callable[[Problem], Tensor]:
    """Return what a form runs; Triton is imported when it is first asked for."""
    if name == "blocked":
        return blocked.hsic_sums
    from lamina_kernels.gram.paired import launch

    return launch.hsic_sums


@operator("gram_known_sums", f"(Tensor value, {SCHEMA}, Tensor v, str form) -> Tensor")
def _known(*arguments: Any) -> Tensor:
    """Return a sum that is known: only its gradients are computed, if anything depends on it."""
    return arguments[0].clone()


@torch.library.register_fake(_known)
def _(*arguments: Any) -> Tensor:
    return torch.empty_like(arguments[0])


def _known_gradients(ctx: Any, g: Tensor | None) -> tuple[Any, ...]:
    (_, *pairs, v, form), _ = kept(ctx)
    if g is None:
        return (None,) * (COUNT + 3)
    needed = [*ctx.needs_input_grad[1:4], False, False]
    x, y, parameters, *_ = gradients(pairs, v, Weights(), g.to(unflat(pairs).dtype), needed, form)
    return None, x, y, parameters, *([None] * (COUNT - 1))


torch.library.register_autograd(_known, _known_gradients, setup_context=keep)
