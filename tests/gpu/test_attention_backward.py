"""The gradients of attention on a GPU: the checks of tests/kernels, with the tiles that users get."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_backward as checks
from tests.kernels import attention_backward_faults as faults
from tests.kernels.attention_forward import times_on_a_gpu
from tests.kernels.forms import Form

pytestmark = pytest.mark.gpu

TRITON = Form(checks.backward, "triton", {}, "cuda")
RULE = checks.errs_at_most_three_times_as_much_as_plain_torch
# What the interpreter cannot show beside what it can.
CASES = [*checks.CASES, *({**case, "dtype": torch.bfloat16} for case in checks.CASES if case["dtype"] == torch.float16)]
LONG: dict[str, Any] = {
    "queries": 700, "keys": 900, "value_width": "same", "places": "plain", "score": "plain", "gradients": "all",
    "group": 2, "sigmoid": False,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_three_times_as_much_as_plain_torch(case):
    TRITON.run(RULE, case, times_on_a_gpu(case["dtype"], 3))


@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("window", ["all", "causal", "both"])
def test_long_sequences_err_no_more(width, dtype, window):
    TRITON.run(RULE, {**LONG, "width": width, "dtype": dtype, "window": window}, times_on_a_gpu(dtype, 3))


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check):
    TRITON.run(check)


@pytest.mark.parametrize("fault", faults.TERMS)
def test_a_thousandth_is_noticed(fault):
    case = {**LONG, "width": 64, "dtype": torch.float32, "window": "both"}
    with pytest.raises(AssertionError):
        TRITON.run(RULE, case, times_on_a_gpu(torch.float32, 3), fault=fault)
