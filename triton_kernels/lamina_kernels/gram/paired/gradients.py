"""The gradients of the sums of two kernels: each is a sum of a product of kernels over the same pairs, see `sums`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.paired.problem import Problem
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import op
from lamina_kernels.gram.terms import Branch, Node, encoded


def differentiable(problem: Problem, sums: Callable[[Problem], Tensor], form: str) -> list[Tensor]:
    """Return the five sums of a form, [n, n_groups] each, with gradients of that form, which have gradients too."""
    with torch.no_grad():
        found = sums(problem)
    x, y = (replace(p, apart=problem.diagonal) for p in problem.pairs())
    products = _product(x, y), x, y, _product(x, x), _product(y, y)
    v = torch.ones(problem.m, 1, dtype=x.dtype, device=x.x.device)
    if problem.groups is not None:
        v = torch.nn.functional.one_hot(problem.groups, problem.n_groups).to(x.dtype)
    known = zip(found, products, strict=True)
    return [_Known.apply(value, v, form, p, p.x, p.y, p.parameters) for value, p in known]


def _product(a: Pairs, b: Pairs) -> Pairs:
    """Return the pairs of rows side by side, under the product of their kernels; of a kernel's square once."""
    parameters = torch.cat([a.parameters, b.parameters])
    if b is a:
        node = Branch("*", a.tree, _moved(b.tree, 0, len(a.parameters)))
        return replace(a, parameters=parameters, code=encoded(node))
    node = Branch("*", a.tree, _moved(b.tree, a.x.shape[1], len(a.parameters)))
    x, y = torch.cat([a.x, b.x], 1), torch.cat([a.y, b.y], 1)
    return replace(a, x=x, y=y, parameters=parameters, code=encoded(node))


def _moved(node: Node, columns: int, places: int) -> Node:
    """Return a tree whose rows and parameters stand behind others."""
    if isinstance(node, Branch):
        return Branch(node.operator, _moved(node.left, columns, places), _moved(node.right, columns, places))
    return node._replace(start=node.start + columns, stop=node.stop + columns, place=node.place + places)


class _Known(torch.autograd.Function):
    """Sums that are known already: only their gradients are computed, of those that have one."""

    @staticmethod
    def forward(
        ctx: Any, value: Tensor, v: Tensor, form: str, p: Pairs, x: Tensor, y: Tensor, parameters: Tensor
    ) -> Tensor:
        """Take the tensors of the pairs too: they are what gradients come for."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, x, y, parameters)
        ctx.form, ctx.pairs = form, replace(p, x=x.detach(), y=y.detach(), parameters=parameters.detach())
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> Any:
        """Return the gradients of the pairs."""
        (g,) = given
        if g is None:
            return (None,) * 7
        v, x, y, parameters = ctx.saved_tensors
        p = replace(ctx.pairs, x=x, y=y, parameters=parameters)
        made = op.gradients(p, v, g.to(p.dtype), ctx.form)
        return None, None, None, None, *made
