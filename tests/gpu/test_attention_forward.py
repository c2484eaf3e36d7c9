"""The forward pass of attention on a GPU: the checks of tests/kernels, with the tiles that users get."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import attention_forward as checks
from tests.kernels.forms import Form

pytestmark = pytest.mark.gpu

TRITON = Form(checks.forward, "triton", {}, "cuda")


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_twice_as_much_as_plain_torch(case):
    TRITON.run(checks.errs_at_most_twice_as_much_as_plain_torch, case, checks.times_on_a_gpu(case["dtype"], 2))


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("window", ["all", "causal", "both"])
def test_long_sequences_err_no_more(width, dtype, window):
    case = checks.case(queries=1500, keys=1700, width=width, dtype=dtype, window=window, tier=3, topk=8)
    TRITON.run(checks.errs_at_most_twice_as_much_as_plain_torch, case, checks.times_on_a_gpu(dtype, 2))


@pytest.mark.parametrize("check", [*checks.CHECKS, checks.addresses_take_64_bits], ids=lambda check: check.__name__)
def test(check):
    TRITON.run(check)
