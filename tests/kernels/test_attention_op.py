"""The operators of attention: differentiable once, known to torch's compiler, flat in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._functorch._aot_autograd.utils import make_boxed_func

from lamina_kernels import attention
from lamina_kernels.attention import (
    Cosine,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    divergence,
    op_divergence,
    op_mass,
)
from lamina_kernels.attention import op as first_pass
from lamina_kernels.attention.op_arguments import flat
from tests.faults import broken
from tests.kernels.attention_problems import problem
from tests.meter import peak_bytes

# Its statistics may be None; those that are asked for are not.
attend: Any = attention.attend

SMOOTH = ("lse", "entropy", "expected_score", "sum_p2", "distance", "max")


def rows(n: int = 6, *, heads: int = 2, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.randn(1, heads, n, 3, generator=generator, dtype=dtype).requires_grad_() for _ in range(3)]


def smooth(q, k, v, *held, make: Callable[..., Any] = dict, statistics=SMOOTH, **options):
    """Return the output and all smooth statistics of attention, whose score or normalizer holds some leaves."""
    masks = {"half": torch.arange(k.shape[2]) < 3}
    out, stats, _ = attend(
        q,
        k,
        v,
        causal=True,
        statistics=statistics,
        targets={"previous": -1, **masks},
        impl="blocked",
        **make(*held),
        **options,
    )
    found = [out]
    for name in statistics:
        value = getattr(stats, name)
        found += list(value) if isinstance(value, tuple) else [value]
    return (*found, *stats.targets.values())


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("held", "make"),
    [
        ((), dict),
        ((leaf(0.2, -0.3),), lambda s: {"normalizer": Softmax(sink=s, softcap=1.5)}),
        ((leaf(0.7),), lambda t: {"score": Cosine(t[0])}),
        ((leaf(0.9),), lambda b: {"score": SquaredDistance(b[0])}),
        ((leaf(*range(10)),), lambda t: {"bias": RelativeBias(t.view(2, 5))}),
    ],
    ids=["dot", "sink and cap", "cosine", "distance", "table"],
)
def test_gradients_of_everything_smooth_are_differences(held, make):
    """Of every statistic by queries, keys, values, and whatever the score and the normalizer hold."""
    names = ("received", "block_mass", *SMOOTH)
    assert torch.autograd.gradcheck(
        lambda *x: smooth(*x, make=make, statistics=names), (*rows(), *held), fast_mode=True
    )


def test_gradients_of_sigmoid_attention_are_differences():
    def found(*x):
        names = ("sum_p2", "received", "max")
        return smooth(*x, make=lambda b: {"normalizer": Sigmoid(b)}, statistics=names)

    assert torch.autograd.gradcheck(found, (*rows(), leaf(-0.5, 0.4)))


@pytest.mark.parametrize("kind", ["kl", "js", "tv"])
def test_gradients_of_divergences_are_differences(kind):
    (q, k, _), (other_q, other_k, _) = rows(5), rows(5, heads=2)
    other_q = (other_q.detach() * 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: divergence(*x, kind=kind, causal=True, impl="blocked").value, (q, k, other_q, other_k)
    )


def test_a_wrong_gradient_of_mass_is_found_out():
    sink = leaf(0.5, 1.0)

    def found(*x):
        return smooth(*x, make=lambda s: {"normalizer": Softmax(sink=s)}, statistics=("received",))

    with broken("attention_gives_a_sink_no_share_of_the_mass"), pytest.raises(AssertionError):
        assert torch.autograd.gradcheck(found, (*rows(), sink), raise_exception=False)


def test_gradients_of_gradients_are_refused():
    q, k, v = rows()
    out = attend(q, k, v, impl="blocked").out
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of gradients is not supported: only impl='reference'"):
        grad.sum().backward()


def test_numbers_of_keys_and_top_scores_have_no_gradient():
    q, k, v = rows()
    stats = attend(q, k, v, statistics=("argmax", "max"), topk=2, share=0.1, impl="blocked").stats
    assert stats.max.requires_grad
    assert not any(x.requires_grad for x in (stats.argmax, stats.top_scores, stats.top_keys, stats.keys_above))


def test_a_gradient_of_the_largest_score_alone_finds_its_key():
    q, k, v = rows()
    attend(q, k, v, statistics=("max",), impl="blocked").stats.max.sum().backward()
    wanted = torch.autograd.grad(attend(q, k, v, statistics=("max",), impl="reference").stats.max.sum(), (q, k))
    for x, expected in zip((q, k), wanted, strict=True):
        torch.testing.assert_close(x.grad, expected)


def test_an_autocast_of_the_caller_rounds_nothing():
    q, k, v = rows(20, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = smooth(q, k, v)
    for a, b in zip(inside, smooth(q, k, v), strict=True):
        assert torch.equal(a, b)


def test_the_same_rows_give_the_same_bits():
    def bits():
        q, k, v = rows(150, dtype=torch.float32)
        sums = smooth(q, k, v, statistics=(*SMOOTH, "received"))
        torch.stack([x.sum() for x in sums]).sum().backward()
        return [*sums, *(x.grad for x in (q, k, v))]

    for a, b in zip(bits(), bits(), strict=True):
        assert torch.equal(a, b)


def differentiable(**options):
    p = problem(queries=9, keys=9, causal=True, factors=True, **options)
    names = ("q", "k", "v", "query_scale", "key_scale", "query_bias", "key_bias")
    return replace(p, **{name: getattr(p, name).detach().clone().requires_grad_() for name in names})


def test_torch_finds_the_operators_in_order():
    """Schemas, fake tensors, gradients with static and dynamic shapes."""
    p = differentiable(tier=3, topk=2, columns=2)
    torch.library.opcheck(first_pass._attend, (*flat(p), "blocked"))
    lse = torch.randn(2, 2, 9, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(op_mass._mass, (*flat(p), lse, True, True, 0.1, "blocked"))
    torch.library.opcheck(op_divergence._divergence, (*flat(p), *flat(differentiable(seed=1)), "js", "blocked"))


def loss(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    names = ("entropy", "received", "distance", "argmax")
    out, stats, _ = attend(
        q,
        k,
        v,
        causal=True,
        statistics=names,
        targets={"previous": -1},
        score=Cosine(temperature),
        normalizer=Softmax(sink=torch.zeros(2)),
        impl="blocked",
    )
    parts = (out, stats.entropy, stats.received.square(), stats.distance.variance, stats.targets["previous"])
    return sum((x.sum() for x in parts), torch.zeros(()))


def test_it_compiles_whole_and_lengths_may_change():
    temperature = torch.tensor(0.3, requires_grad=True)
    graphs = 0

    def count(graph, example):
        nonlocal graphs
        graphs += 1
        return make_boxed_func(graph)

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=count))
    for n in (9, 12, 20):
        q, k, v = rows(n, dtype=torch.float32)
        leaves = (q, k, v, temperature)
        got = torch.autograd.grad(compiled(*leaves), leaves)
        wanted = torch.autograd.grad(loss(*leaves), leaves)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)
    # One graph forward and one backward, whatever the length.
    assert graphs == 2


def needed(n: int) -> int:
    """Return the bytes that attention of `n` queries and keys needs forward and backward, beyond a small one."""
    setup = """
        import torch
        from lamina_kernels.attention import attend
        names = ("entropy", "argmax", "distance", "received")

        def both(n):
            q, k, v = (torch.ones(1, 1, n, 16, requires_grad=True) for _ in range(3))
            out, stats, _ = attend(q, k, v, window=(300, 0), statistics=names, impl="blocked")
            (out.sum() + stats.entropy.sum() + stats.received.sum()).backward()

        both(600)
    """
    return peak_bytes(f"{setup}\n        both({n})") - peak_bytes(setup)


def test_memory_is_flat():
    """A matrix of 6,000 queries and keys is 144 MB; rows, results and gradients are 5 MB."""
    assert needed(6000) < 40e6
