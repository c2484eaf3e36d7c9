"""The Triton kernels of the gradients of `attend`, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_backward as checks
from tests.kernels import attention_backward_faults as faults
from tests.kernels.forms import Form

_TILING = "lamina_kernels.attention.tiling"


def small_tiles(*arguments):
    from lamina_kernels.attention.tiling import Tiling

    return Tiling(64, 64, 4, 1)


TRITON = Form(
    checks.backward, "triton", {f"{_TILING}.of_queries": small_tiles, f"{_TILING}.of_keys": small_tiles}, "interpreter"
)


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_three_times_as_much_as_plain_torch(case):
    TRITON.run(checks.errs_at_most_three_times_as_much_as_plain_torch, case)


# Between them: masks of both kinds, terms, caps, slopes, every statistic, several tiles on both sides.
_WHOLE: dict[str, Any] = {
    "width": 16, "queries": 70, "keys": 130, "value_width": "same", "window": "both", "places": "plain",
    "score": "capped", "gradients": "all", "group": 2, "sigmoid": False, "dtype": torch.float32,
}  # fmt: skip


def test_scores_with_a_table_that_is_not_learned_have_gradients():
    checks_of = checks.errs_at_most_three_times_as_much_as_plain_torch
    TRITON.run(checks_of, {**_WHOLE, "score": "table", "queries": 40, "keys": 70})


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check):
    TRITON.run(check)


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("attention_swaps_the_sign_of_log_p", {"score": "plain", "window": "all"}),
        ("attention_forgets_a_half_of_sum_p2", {"score": "plain", "window": "all"}),
        ("attention_forgets_what_is_constant_in_a_row", {"gradients": "out"}),
        ("attention_swaps_the_distances", {}),
        ("attention_takes_the_next_key_for_the_largest", {}),
        ("attention_backward_forgets_the_slope_of_the_cap", {}),
        ("attention_backward_drops_the_window_for_keys", {}),
        ("attention_backward_skips_a_program", {}),
        ("attention_backward_takes_one_head_of_a_group", {}),
        ("attention_backward_reads_bits_of_another_block", {"places": "blocks"}),
    ],
)
def test_a_fault_is_noticed(fault, changes):
    with pytest.raises(AssertionError):
        TRITON.run(checks.errs_at_most_three_times_as_much_as_plain_torch, {**_WHOLE, **changes}, fault=fault)


@pytest.mark.parametrize("fault", [*faults.TERMS, *faults.GRADIENTS])
def test_a_thousandth_is_noticed(fault):
    case = {**_WHOLE, "queries": 20, "keys": 40, "group": 1}
    with pytest.raises(AssertionError):
        TRITON.run(checks.errs_at_most_three_times_as_much_as_plain_torch, case, fault=fault)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_of_one_key_a_thousandth_is_noticed(dtype):
    """Gradients of the output by its score cancel whole, so that nothing hides what is left."""
    case = {**_WHOLE, "queries": 40, "keys": 1, "score": "plain", "window": "all", "dtype": dtype}
    fault = "attention_term_of_constant_is_slightly_off"
    with pytest.raises(AssertionError):
        TRITON.run(checks.errs_at_most_three_times_as_much_as_plain_torch, case, fault=fault)


def test_another_form_under_the_name_is_noticed():
    with pytest.raises(AssertionError):
        TRITON.run(checks.kernels_are_launched, fault="attention_backward_gives_way")


def test_addresses_of_32_bits_are_noticed():
    # A wild address reads anything, or ends the process.
    with pytest.raises((AssertionError, RuntimeError)):
        TRITON.run(checks.addresses_take_64_bits, fault="hsic_kernel_counts_in_32_bits")
