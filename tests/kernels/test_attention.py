from __future__ import annotations

import pytest
import torch

from tests.kernels import attention_checks as checks
from tests.kernels.attention_forms import FORMS

FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@FORM
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test_a_truth_holds(form, check):
    form.run(check)


@FORM
@pytest.mark.parametrize("case", checks.CASES)
def test_it_agrees_with_the_truth(form, case):
    form.run(checks.agrees_with_the_truth, case)


@pytest.mark.parametrize("case", checks.CASES)
def test_in_double_it_is_the_truth(case):
    FORMS["reference"].run(checks.agrees_with_the_truth, case, torch.float64, 1e-10)
