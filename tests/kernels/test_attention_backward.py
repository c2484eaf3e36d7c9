"""The Triton kernels of the gradients of `attend`, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import attention_backward as checks
from tests.kernels.forms import Form


def _backward(*arguments, impl):
    assert impl == "triton"
    from lamina_kernels.attention.backward_launch import backward

    return backward(*arguments)


_TILING = "lamina_kernels.attention.tiling"


def small_tiles(*arguments):
    from lamina_kernels.attention.tiling import Tiling

    return Tiling(32, 64, 4, 1)


TRITON = Form(
    _backward, "triton", {f"{_TILING}.of_queries": small_tiles, f"{_TILING}.of_keys": small_tiles}, "interpreter"
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
