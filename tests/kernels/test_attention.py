from __future__ import annotations

import pytest
import torch

from tests.kernels import attention_checks as checks
from tests.kernels.attention_forms import FORMS

# What the interpreter takes long for, and `test_attention_forward` shows of the kernels: block masks, poisoned memory.
SHOWN = ("documents", "mask", checks.every_number_is_written)


def each(values):
    """Pair every form with every value, but Triton with what is shown elsewhere."""
    return [(form, value) for form in FORMS for value in values if form != "triton" or value not in SHOWN]


@pytest.mark.parametrize(("form", "check"), each(checks.TRUTHS), ids=lambda x: getattr(x, "__name__", x))
def test_a_truth_holds(form, check):
    FORMS[form].run(check)


@pytest.mark.parametrize(("form", "case"), each(checks.CASES))
def test_it_agrees_with_the_truth(form, case):
    FORMS[form].run(checks.agrees_with_the_truth, case)


@pytest.mark.parametrize("case", checks.CASES)
def test_in_double_it_is_the_truth(case):
    FORMS["reference"].run(checks.agrees_with_the_truth, case, torch.float64, 1e-10)
