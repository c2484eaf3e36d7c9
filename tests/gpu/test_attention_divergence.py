"""The divergence of two attentions on a GPU: the checks of tests/kernels, with the tiles that users get."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lamina_kernels.attention import divergence
from tests.kernels import attention_divergence as checks
from tests.kernels import attention_divergence_checks as truths
from tests.kernels import attention_op_checks as operators
from tests.kernels.attention_forward import times_on_a_gpu
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

TRITON = Form(checks.passes, "triton", {}, "cuda")
FACE = Form(divergence, "triton", {}, "cuda")
KIND = pytest.mark.parametrize("kind", ["kl", "js", "tv"])
VALUE = checks.errs_at_most_twice_as_much_as_plain_torch
GRADIENTS = checks.gradients_err_at_most_three_times_as_much_as_plain_torch


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_it_errs_no_more_than_plain_torch(case):
    TRITON.run(VALUE, case, times_on_a_gpu(case["dtype"], 2))
    TRITON.run(GRADIENTS, case, times_on_a_gpu(case["dtype"], 3))


@KIND
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_long_sequences_err_no_more(width, dtype, kind):
    case = checks.case(kind=kind, queries=700, keys=900, width=width, dtype=dtype, window="left")
    TRITON.run(VALUE, case, times_on_a_gpu(dtype, 2))
    TRITON.run(GRADIENTS, case, times_on_a_gpu(dtype, 3))


@KIND
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check, kind):
    TRITON.run(check, kind)


@pytest.mark.parametrize("check", truths.TRUTHS, ids=lambda check: check.__name__)
def test_a_truth_holds(check):
    FACE.run(check)


def test_torch_finds_it_in_order():
    operators.BLOCKED._replace(impl="triton", device="cuda").run(operators.the_divergence_is_in_order)


def test_the_same_rows_give_the_same_bits():
    leaves = [normal(2, 4, 1000, 64, seed=n, dtype=torch.bfloat16).cuda().requires_grad_() for n in range(4)]
    value = partial(divergence, *leaves, kind="js", causal=True, impl="triton")
    first, second = (value().value for _ in range(2))
    assert torch.equal(first, second)
    for a, b in zip(*(torch.autograd.grad(x.sum(), leaves) for x in (first, second)), strict=True):
        assert torch.equal(a, b)


def test_memory_does_not_grow_with_the_pairs():
    """A pattern of 32,768 queries and keys is 2 GB in half precision; rows, results and gradients are 40 MB."""
    leaves = [normal(1, 1, 32_768, 64, seed=n, dtype=torch.bfloat16).cuda().requires_grad_() for n in range(4)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    divergence(*leaves, kind="js", impl="triton").value.sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 100e6
