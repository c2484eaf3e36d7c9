"""The forward pass of attention in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_forward as checks
from tests.kernels.forms import Form


def form(case: dict[str, Any] | None = None) -> Form:
    """The Triton kernel, which takes every way through a small problem."""
    return Form(checks.forward, "triton", checks.settings(case or {}), "interpreter")


def name(case: dict[str, Any]) -> str:
    return " ".join(str(value).removeprefix("torch.") for value in case.values())


@pytest.mark.parametrize("case", checks.CASES, ids=name)
def test_errs_at_most_twice_as_much_as_plain_torch(case):
    form(case).run(checks.errs_at_most_twice_as_much_as_plain_torch, case)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check):
    form().run(check)


def test_addresses_take_64_bits():
    form().run(checks.addresses_take_64_bits)
    # A wild address reads anything, or ends the process.
    with pytest.raises((AssertionError, RuntimeError)):
        form().run(checks.addresses_take_64_bits, fault="hsic_kernel_counts_in_32_bits")


def test_tiles_as_large_as_on_a_gpu():
    whole = checks.case(queries=140, keys=150, width=64, dtype=torch.float16, tier=3, window="left")
    Form(checks.forward, "triton", {}, "interpreter").run(checks.errs_at_most_twice_as_much_as_plain_torch, whole)


ERROR = checks.errs_at_most_twice_as_much_as_plain_torch
NOTICED = [
    ("attention_kernel_forgets_to_rescale", ERROR, (checks.case(),)),
    ("attention_kernel_rounds_what_is_not_seen", checks.what_is_seen_late_is_right_in_fused_instructions, ()),
    ("attention_kernel_masks_the_end_alone", ERROR, (checks.case(window="causal"),)),
    ("attention_kernel_takes_edges_for_full", ERROR, (checks.case(),)),
    ("attention_kernel_is_one_sided", checks.keys_on_both_sides_count_apart, ()),
    ("attention_kernel_stands_top_left", ERROR, (checks.case(window="causal"),)),
    ("attention_kernel_skips_a_program", ERROR, (checks.case(),)),
    ("attention_kernel_shares_a_key_head", ERROR, (checks.case(),)),
    ("attention_entropy_is_a_difference", checks.scores_of_ten_thousand_keep_their_entropy, ()),
    ("attention_parts_weigh_alike", ERROR, (checks.case(parts=3, keys=129),)),
    ("attention_top_sees_everything", checks.of_equal_scores_the_first_key_is_the_largest, ()),
    ("attention_triton_gives_way", checks.kernels_are_launched, ()),
]


@pytest.mark.parametrize(("fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_is_noticed(fault, check, arguments):
    case = arguments[0] if arguments else {}
    with pytest.raises(AssertionError):
        form(case).run(check, *arguments, fault=fault)
