"""The Triton kernels of a divergence and of its gradients, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina_kernels.attention import blocked_divergence, divergence
from tests.kernels import attention_divergence as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal


def form(case: dict[str, Any] | None = None) -> Form:
    """The Triton kernels, which take every way through a small problem."""
    return Form(checks.passes, "triton", checks.settings(case or {}), "interpreter")


def name(case: dict[str, Any]) -> str:
    return " ".join(str(value).removeprefix("torch.") for value in case.values())


# The first cases hold most pairs; the others add a few each.
CASES = [
    pytest.param(case, id=name(case), marks=pytest.mark.slow if place >= 8 else ())
    for place, case in enumerate(checks.CASES)
]
VALUE = checks.errs_at_most_twice_as_much_as_plain_torch
GRADIENTS = checks.gradients_err_at_most_three_times_as_much_as_plain_torch
KINDS = ["kl", "js", "tv"]


@pytest.mark.parametrize("case", CASES)
def test_values_err_at_most_twice_as_much_as_plain_torch(case):
    form(case).run(VALUE, case)


@pytest.mark.parametrize("case", CASES)
def test_gradients_err_at_most_three_times_as_much_as_plain_torch(case):
    form(case).run(GRADIENTS, case)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check, kind):
    form().run(check, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_a_key_that_one_model_hides_has_its_share(impl, kind):
    Form(checks.passes, impl).run(checks.a_key_that_one_model_hides_has_its_share, kind)


def test_tiles_as_large_as_on_a_gpu():
    whole = checks.case(queries=140, keys=150, width=64, dtype=torch.float16, window="left")
    for check in (VALUE, GRADIENTS):
        Form(checks.passes, "triton", {}, "interpreter").run(check, whole)


def test_a_model_that_needs_no_gradient_costs_nothing():
    Form(checks.passes, "blocked").run(checks.a_model_that_needs_no_gradient_costs_nothing, "js")


@pytest.mark.parametrize("leaves", [(0,), (3,), (1, 2)])
def test_models_with_leaves_are_those_that_need_gradients(leaves, monkeypatch):
    needed = []
    whole = blocked_divergence.divergence_backward
    monkeypatch.setattr(
        blocked_divergence, "divergence_backward", lambda *given: (needed.append(given[-1]), whole(*given))[1]
    )
    rows = [normal(1, 2, 5, 16, seed=n).requires_grad_(n in leaves) for n in range(4)]
    found = [
        torch.autograd.grad(divergence(*rows, impl=impl).value.sum(), [rows[n] for n in leaves])
        for impl in ("blocked", "reference")
    ]
    assert needed == [(min(leaves) < 2, max(leaves) >= 2)]
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


HIDDEN = checks.a_key_that_one_model_hides_has_its_share
NOTICED = [
    ("attention_divergence_skips_a_program", VALUE, checks.case()),
    ("attention_divergence_forgets_to_rescale", VALUE, checks.case(kind="kl")),
    ("attention_divergence_sees_the_past", VALUE, checks.case(window="left")),
    ("attention_divergence_sees_the_past", GRADIENTS, checks.case(window="left")),
    ("attention_divergence_shares_keys_alike", VALUE, checks.case(kind="tv")),
    ("attention_divergence_interpolates", VALUE, checks.case()),
    ("attention_divergence_skips_queries", GRADIENTS, checks.case()),
    ("attention_divergence_skips_keys", GRADIENTS, checks.case()),
    ("attention_divergence_drops_the_mask_for_keys", GRADIENTS, checks.case(places="blocks")),
    ("attention_divergence_takes_one_head_of_a_group", GRADIENTS, checks.case(group=2)),
    ("attention_divergence_swaps_the_models", GRADIENTS, checks.case(kind="kl")),
    ("attention_divergence_forgets_the_slope_of_the_cap", GRADIENTS, checks.case(score="capped")),
    ("attention_divergence_forgets_the_mean", GRADIENTS, checks.case(kind="tv")),
    ("attention_divergence_swaps_a_sign", GRADIENTS, checks.case()),
    ("attention_divergence_in_bits", GRADIENTS, checks.case(kind="kl")),
    ("attention_divergence_of_rounding", checks.one_key_leaves_nothing, "tv"),
    ("attention_divergence_has_infinite_gradients", HIDDEN, "kl"),
    ("attention_divergence_hides_by_the_first", HIDDEN, "kl"),
    ("attention_divergence_hides_by_the_first", HIDDEN, "js"),
]


@pytest.mark.parametrize(("fault", "check", "argument"), NOTICED, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_is_noticed(fault, check, argument):
    case = argument if isinstance(argument, dict) else {}
    with pytest.raises(AssertionError):
        form(case).run(check, argument, fault=fault)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_who_hides_what_is_noticed_in_every_form(impl):
    with pytest.raises(AssertionError):
        Form(checks.passes, impl).run(HIDDEN, "tv", fault="attention_divergence_hides_by_the_first")
