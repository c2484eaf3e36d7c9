from __future__ import annotations

import pytest
import torch

from lamina_kernels.attention import divergence
from tests.kernels import attention_divergence_checks as checks
from tests.kernels.attention_divergence import settings
from tests.kernels.forms import Form

FORMS = {
    "reference": Form(divergence, "reference"),
    "blocked": Form(divergence, "blocked"),
    "triton": Form(divergence, "triton", settings({}), "interpreter"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test_a_truth_holds(form, check):
    form.run(check)


def test_in_double_it_is_the_dense_one():
    FORMS["reference"].run(checks.agrees_with_dense_patterns, torch.float64, 1e-10)


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("attention_kl_is_the_other_way_round", checks.two_keys_by_hand),
        ("attention_js_forgets_the_half", checks.disjoint_attention_diverges_as_far_as_it_can),
        ("attention_js_forgets_the_half", checks.agrees_with_dense_patterns),
        ("attention_forgets_the_scale", checks.agrees_with_dense_patterns),
        ("attention_packs_one_sequence", checks.packed_sequences_diverge_as_they_do_alone),
        ("attention_is_never_causal", checks.queries_that_see_nothing_do_not_diverge),
    ],
)
def test_a_fault_is_noticed(name, check):
    with pytest.raises(AssertionError):
        FORMS["reference"].run(check, fault=name)


@pytest.mark.parametrize(
    "fault", ["attention_divergence_knows_what_was", "attention_divergence_takes_what_it_knows_for_constants"]
)
@pytest.mark.parametrize("form", ["blocked", "triton"])
def test_a_fault_in_what_is_known_is_noticed(form, fault):
    with pytest.raises(AssertionError):
        FORMS[form].run(checks.known_log_sum_exps_change_nothing, fault=fault)
