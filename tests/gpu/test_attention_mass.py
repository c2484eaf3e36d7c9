"""The second pass of attention on a GPU: the checks of tests/kernels, with the tiles that users get."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import attention_mass as checks
from tests.kernels.forms import Form

pytestmark = pytest.mark.gpu

TRITON = Form(checks.mass, "triton", {}, "cuda")
CASES = [*checks.CASES, *({**case, "dtype": torch.bfloat16} for case in checks.CASES if case["dtype"] == torch.float16)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_agrees_with_the_reference(case):
    TRITON.run(checks.agrees_with_the_reference, case)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check):
    TRITON.run(check)
