"""The operators of attention: differentiable once, known to torch's compiler, flat in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.testing._internal.optests.generate_tests import OpCheckError

from lamina_kernels import attention
from lamina_kernels.attention import Cosine, RelativeBias, Sigmoid, Softmax, SquaredDistance, divergence
from tests.faults import broken
from tests.kernels import attention_op_checks as checks
from tests.kernels.attention_op_checks import rows
from tests.meter import peak_bytes

# Its statistics may be None; those that are asked for are not.
attend: Any = attention.attend

SMOOTH = ("lse", "entropy", "expected_score", "sum_p2", "distance", "max")


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


def test_torch_finds_the_operators_in_order():
    for check in checks.OPERATORS:
        checks.BLOCKED.run(check)


def test_results_are_what_torch_was_told():
    for form in (checks.BLOCKED, checks.TRITON):
        form.run(checks.results_are_what_torch_was_told)


@pytest.mark.parametrize("fault", ["says_the_wrong_dtype", "changes_its_arguments"])
def test_a_fault_of_an_operator_is_noticed(fault):
    with broken(f"attention_operator_{fault}"), pytest.raises(OpCheckError):
        checks.BLOCKED.run(checks.the_first_pass_is_in_order)


def test_it_compiles_whole_and_lengths_may_change():
    checks.BLOCKED.run(checks.it_compiles_whole_and_lengths_may_change)


def test_memory_is_flat():
    """A matrix of 4,096 queries and keys is 67 MB, of 32,768 it is 4.3 GB; what grows with n is 0.7 KB a row."""
    peak_bytes("""
        import torch
        from pathlib import Path
        from lamina_kernels.attention import attend

        def peak():
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

        def both(n):
            q, k, v = (torch.ones(1, 1, n, 16, requires_grad=True) for _ in range(3))
            with torch.no_grad():
                attend(q, k, v, causal=True, statistics=("entropy",), impl="blocked")
            names = ("entropy", "argmax", "distance", "received")
            out, stats, _ = attend(q, k, v, window=(300, 0), statistics=names, impl="blocked")
            (out.sum() + stats.entropy.sum() + stats.received.sum()).backward()
            return peak()

        alone = both(600)
        some = both(4096) - alone
        assert some < 30e6, some
        many = both(32768) - alone
        assert many < 120e6, many
    """)
