"""What an encoder keeps, as operators that torch knows: compiled without a break, and differentiable as often as asked.

Gradients come from what was kept alone: sums of rows of the weight, and of rows of x by unit, as in decoding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.operators import keep as keep_inputs
from lamina_kernels.operators import kept as kept_inputs
from lamina_kernels.operators import operator, plainly, tensors
from lamina_kernels.sparse.decoding import op as decoding
from lamina_kernels.sparse.decoding.entries import Entries
from lamina_kernels.sparse.encoding import blocked
from lamina_kernels.sparse.encoding.problem import Above, Kept, Largest, Problem, Rule, Together
from lamina_kernels.tiles.rows import accumulation_dtype

_PROBLEM = "Tensor x, Tensor weight, Tensor? bias"


def keep(p: Problem, rule: Rule, form: str, *, positive: bool = False) -> Kept:
    """Return what a rule keeps; see `blocked.keep`."""
    if isinstance(rule, Largest):
        pre, ids, mass, counts = _largest(p.x, p.weight, p.bias, *rule, positive, form)
        return Kept(pre, ids, None, mass, counts)
    found = (_together if isinstance(rule, Together) else _above)(p.x, p.weight, p.bias, *rule, positive, form)
    pre, ids, indptr, counts = found
    return Kept(pre, ids, indptr, pre.new_empty(0), counts)


def _run(make: Callable[..., Rule], arguments: tuple[Any, ...]) -> Kept:
    p, of_rule, positive = _parts(arguments)
    rule = make(*of_rule)
    with plainly(p.x), torch.no_grad():
        if arguments[-1] == "triton":
            from lamina_kernels.sparse.encoding import candidates

            return candidates.keep(p, rule, positive=positive)
        return blocked.keep(p, rule, positive=positive)


def _parts(arguments: tuple[Any, ...]) -> tuple[Problem, list[Any], bool]:
    """Return the problem, what its rule holds, and whether positive pre-activations are counted."""
    x, weight, bias, *of_rule, positive, _ = arguments
    return Problem(x, weight, bias), of_rule, positive


@operator(
    "sparse_largest",
    f"({_PROBLEM}, int k, int groups, Tensor? boost, bool mass, bool positive, str form) -> {tensors(4)}",
)
def _largest(*arguments: Any) -> tuple[Tensor, ...]:
    kept = _run(Largest, arguments)
    return kept.pre, kept.ids, kept.mass, kept.positive


@torch.library.register_fake(_largest)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    p, (k, groups, _, mass), positive = _parts(arguments)
    pre = p.x.new_empty(p.n, k * groups, dtype=p.dtype)
    return pre, pre.new_empty(pre.shape, dtype=torch.int32), pre.new_empty(p.n if mass else 0), _counts(p, positive)


@operator("sparse_together", f"({_PROBLEM}, int k, bool positive, str form) -> {tensors(4)}")
def _together(*arguments: Any) -> tuple[Tensor, ...]:
    return _in_rows(_run(Together, arguments))


@torch.library.register_fake(_together)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    p, (k,), positive = _parts(arguments)
    return _entries(p, k * p.n, positive)


@operator("sparse_above", f"({_PROBLEM}, Tensor? units, Tensor? rows, bool positive, str form) -> {tensors(4)}")
def _above(*arguments: Any) -> tuple[Tensor, ...]:
    return _in_rows(_run(Above, arguments))


@torch.library.register_fake(_above)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    p, _, positive = _parts(arguments)
    return _entries(p, torch.library.get_ctx().new_dynamic_size(), positive)


def _in_rows(kept: Kept) -> tuple[Tensor, ...]:
    assert kept.indptr is not None
    return kept.pre, kept.ids, kept.indptr, kept.positive


def _entries(p: Problem, nnz: Any, positive: bool) -> tuple[Tensor, ...]:
    pre = p.x.new_empty(nnz, dtype=p.dtype)
    ids, indptr = pre.new_empty(nnz, dtype=torch.int32), pre.new_empty(p.n + 1, dtype=torch.int64)
    return pre, ids, indptr, _counts(p, positive)


def _counts(p: Problem, positive: bool) -> Tensor:
    return p.x.new_empty(p.m if positive else 0, dtype=torch.int64)


def _gradients(ctx: Any, g: Tensor | None, *others: None) -> tuple[Any, ...]:
    inputs, (_, ids, third, _) = kept_inputs(ctx)
    if g is None:
        return (None,) * len(inputs)
    x, weight, bias, *rest = inputs
    of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
    k = ids.shape[1] if ids.ndim == 2 else 0
    indptr = third if ids.ndim == 1 else torch.arange(len(ids) + 1, device=ids.device) * k
    form = rest[-1]
    e = Entries(g.to(x.dtype).flatten(), ids.flatten(), indptr)
    return (
        decoding.decode(e, weight[None], None, form)[:, 0] if of_x else None,
        decoding.by_unit(e, x[:, None], len(weight), form)[0] if of_weight else None,
        _by_unit(e, x, bias, form) if of_bias else None,
        *([None] * len(rest)),
    )


def _by_unit(e: Entries, x: Tensor, bias: Tensor, form: str) -> Tensor:
    """Return the sum of the values of each unit."""
    if x.is_cuda:
        # There, adding by index is in no fixed order.
        return decoding.by_unit(e, x.new_ones(len(x), 1, 1), len(bias), form)[0, :, 0]
    values = e.values.to(accumulation_dtype(x.dtype))
    return values.new_zeros(len(bias)).index_add(0, e.ids, values).to(bias.dtype)


for _operator in (_largest, _together, _above):
    torch.library.register_autograd(_operator, _gradients, setup_context=keep_inputs)
