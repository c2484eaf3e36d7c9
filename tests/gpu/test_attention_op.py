"""The operators of attention on a GPU: truths through the face, torch's compiler, graphs, memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from lamina_kernels import attention
from tests.kernels import attention_checks as truths
from tests.kernels import attention_gradient_checks as gradients
from tests.kernels import attention_op_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

attend: Any = attention.attend
FACE = Form(attention.attend, "triton", {}, "cuda")
OPERATOR = checks.BLOCKED._replace(impl="triton", device="cuda")


@pytest.mark.parametrize("check", truths.TRUTHS, ids=lambda check: check.__name__)
def test_a_truth_holds(check):
    FACE.run(check)


@pytest.mark.parametrize("case", truths.CASES)
def test_it_agrees_with_the_truth(case):
    FACE.run(truths.agrees_with_the_truth, case)


@pytest.mark.parametrize("name", [name for name in gradients.LEARNED if name != "relative"])
def test_gradients_are_those_of_the_reference(name):
    FACE.run(gradients.gradients_are_those_of_the_reference, name, 1e-4, torch.float32)


@pytest.mark.parametrize(
    "check",
    [*checks.OPERATORS[:2], checks.results_are_what_torch_was_told, checks.it_compiles_whole_and_lengths_may_change],
    ids=lambda check: check.__name__,
)
def test_torch_finds_it_in_order(check):
    OPERATOR.run(check)


def test_inductor_compiles_it():
    with torch.device("cuda"):
        leaves = (*checks.rows(50, dtype=torch.float32), torch.tensor(0.3, requires_grad=True))
        sink = torch.zeros(2)
        loss: Any = partial(checks.loss, impl="triton")
        compiled: Any = torch.compile(loss, fullgraph=True)
        got = torch.autograd.grad(compiled(*leaves, sink), leaves)
        wanted = torch.autograd.grad(loss(*leaves, sink), leaves)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)


def both_passes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    """Return output, statistics and gradients of all of them."""
    names = ("lse", "entropy", "max", "argmax", "sum_p2", "distance", "received")
    out, stats, _ = attend(q, k, v, causal=True, statistics=names, impl="triton", **options)
    parts = (out, stats.entropy, stats.sum_p2, stats.max, stats.distance.variance / 1e3, stats.received.square())
    loss = torch.stack([part.float().sum() for part in parts]).sum()
    return [out, stats.entropy, stats.argmax, stats.received, *torch.autograd.grad(loss, (q, k, v))]


@pytest.mark.parametrize("packed", [False, True])
def test_a_graph_replays_both_passes_with_new_numbers(packed):
    options: dict[str, Any] = {}
    shape = (2, 4, 200, 64)
    if packed:
        starts = torch.tensor([0, 70, 200], dtype=torch.int32, device="cuda")
        options = {"cu_seqlens_q": starts, "cu_seqlens_k": starts, "max_seqlen_q": 130, "max_seqlen_k": 130}
        shape = (200, 4, 64)
    leaves = [normal(*shape, seed=n, dtype=torch.bfloat16).cuda().requires_grad_() for n in range(3)]
    # Kernels are compiled before anything is recorded.
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        both_passes(*leaves, **options)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed = both_passes(*leaves, **options)
    with torch.no_grad():
        for leaf in leaves:
            leaf.mul_(-0.5)
    graph.replay()
    for got, wanted in zip(replayed, both_passes(*leaves, **options), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_the_same_rows_give_the_same_bits(dtype):
    leaves = [normal(2, 4, 1000, 64, seed=n, dtype=dtype).cuda().requires_grad_() for n in range(3)]
    for a, b in zip(both_passes(*leaves), both_passes(*leaves), strict=True):
        assert torch.equal(a, b)


def test_memory_does_not_grow_with_the_pairs():
    """A pattern of 32,768 queries and keys is 2 GB in half precision; rows, results and gradients are 60 MB."""
    leaves = [normal(1, 1, 32_768, 64, seed=n, dtype=torch.bfloat16).cuda().requires_grad_() for n in range(3)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    both_passes(*leaves)
    assert torch.cuda.max_memory_allocated() - before < 150e6
