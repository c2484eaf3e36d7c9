"""What torch asks of the operators of attention, for a form that a check is given the name of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

from lamina_kernels import attention
from lamina_kernels.attention import Cosine, Softmax, op_divergence, op_mass
from lamina_kernels.attention import op as first_pass
from lamina_kernels.attention.op_arguments import flat
from lamina_kernels.attention.problem import Problem
from tests.kernels import attention_faults as attention_faults  # known where checks run
from tests.kernels.attention_forms import TINY
from tests.kernels.attention_problems import problem
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

# Its statistics may be None; those that are asked for are not.
attend: Any = attention.attend
Named = Callable[[], str]


def called(*, impl: str) -> str:
    """Return the name of a form."""
    return impl


BLOCKED = Form(called, "blocked")
TRITON = Form(called, "triton", TINY, "interpreter")


def rows(n: int = 6, *, heads: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [normal(1, heads, n, 3, seed=10 * n + part, dtype=dtype).requires_grad_() for part in range(3)]


def differentiable(form: str, **options: Any) -> Problem:
    """Return a problem with a leaf of each kind; Triton has no float64."""
    dtype = torch.float64 if form == "blocked" else torch.float32
    p = problem(queries=9, keys=9, causal=True, factors=True, dtype=dtype, **options)
    names = ("q", "k", "v", "query_scale", "key_scale", "query_bias", "key_bias")
    return replace(p, **{name: getattr(p, name).detach().clone().requires_grad_() for name in names})


def the_first_pass_is_in_order(named: Named) -> None:
    """Schema, fake tensors, gradients with static and dynamic shapes."""
    p = differentiable(named(), tier=3, topk=2, columns=2)
    torch.library.opcheck(first_pass._attend, (*flat(p), named()))


def the_second_pass_is_in_order(named: Named) -> None:
    p = differentiable(named())
    lse = normal(2, 2, 9, seed=1, dtype=p.dtype).requires_grad_()
    torch.library.opcheck(op_mass._mass, (*flat(p), lse, True, True, 0.1, named()))


def the_divergence_is_in_order(named: Named) -> None:
    both = (*flat(differentiable(named())), *flat(differentiable(named(), seed=1)))
    torch.library.opcheck(op_divergence._divergence, (*both, None, None, "js", named()))
    known = [normal(2, 2, 9, seed=seed, dtype=both[0].dtype) for seed in (2, 3)]
    told = ("test_schema", "test_faketensor")
    torch.library.opcheck(op_divergence._divergence, (*both, *known, "js", named()), test_utils=told)


def results_are_what_torch_was_told(named: Named) -> None:
    """Shapes, strides and dtypes of all three operators, without the gradients."""
    whole, told = differentiable(named(), tier=3, topk=2, columns=2), ("test_schema", "test_faketensor")
    for p in (whole, replace(whole, v=whole.v.detach()[..., :0])):
        with torch.no_grad():
            _are_what_torch_was_told(p, named(), told)


def _are_what_torch_was_told(p: Problem, name: str, told: Any) -> None:
    found = first_pass.attend(p, name)
    torch.library.opcheck(first_pass._attend, (*flat(p), name), test_utils=told)
    given = [x if x is not None and x.is_floating_point() else None for x in found]
    torch.library.opcheck(first_pass._backward, (*flat(p), *found, *given, name), test_utils=told)
    torch.library.opcheck(op_mass._mass, (*flat(p), found.lse, True, True, 0.1, name), test_utils=told)


OPERATORS = [the_first_pass_is_in_order, the_second_pass_is_in_order, the_divergence_is_in_order]


def loss(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor, sink: torch.Tensor, *, impl: str
) -> torch.Tensor:
    names = ("entropy", "received", "distance", "argmax")
    out, stats, _ = attend(
        q,
        k,
        v,
        causal=True,
        statistics=names,
        targets={"previous": -1},
        score=Cosine(temperature),
        normalizer=Softmax(sink=sink),
        impl=impl,
    )
    parts = (out, stats.entropy, stats.received.square(), stats.distance.variance, stats.targets["previous"])
    return torch.stack([x.sum() for x in parts]).sum()


def it_compiles_whole_and_lengths_may_change(named: Named) -> None:
    temperature, sink = torch.tensor(0.3, requires_grad=True), torch.zeros(2)
    graphs = 0

    def count(graph: Any, example: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return make_boxed_func(graph)

    torch._dynamo.reset()
    eager: Any = partial(loss, impl=named())
    compiled: Any = torch.compile(eager, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=count))
    for n in (9, 20):
        leaves = (*rows(n, dtype=torch.float32), temperature)
        got = torch.autograd.grad(compiled(*leaves, sink), leaves)
        for a, b in zip(got, torch.autograd.grad(eager(*leaves, sink), leaves), strict=True):
            torch.testing.assert_close(a, b)
    # One graph forward and one backward, whatever the length.
    assert graphs == 2
