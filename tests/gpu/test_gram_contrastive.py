"""Contrastive losses on a GPU: the checks of tests/kernels, with one program for each block of rows, and with few."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina_kernels.gram import pairwise_loss
from tests.kernels import contrastive_checks as checks
from tests.kernels.forms import Form

pytestmark = pytest.mark.gpu

_LAUNCH = "lamina_kernels.gram.sums.launch"
FORMS = {
    "triton": Form(pairwise_loss, "triton", {}, "cuda"),
    "loop": Form(pairwise_loss, "triton", {f"{_LAUNCH}.DOWN": 1, f"{_LAUNCH}.PROGRAMS": 1}, "cuda"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["sigmoid", "infonce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_losses_have_their_digits(form: str, kind: str, dtype: torch.dtype) -> None:
    FORMS[form].run(checks.losses_have_their_digits, kind, dtype)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    FORMS["loop"].run(check)
