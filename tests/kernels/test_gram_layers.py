"""CKA of many layers by the Triton kernel, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest

from lamina_kernels.gram import cka_matrix
from tests.kernels import layers_checks as checks
from tests.kernels.forms import Form

_LAUNCH = "lamina_kernels.gram.dependence.launch"
ERRS = checks.errs_at_most_twice_as_much_as_plain_torch
_BACKWARD = "lamina_kernels.gram.dependence.backward_launch"
GRADIENTS = checks.gradients_err_at_most_three_times_as_much
# Interpreted, a turn of a loop takes as long as what it multiplies.
_LARGE = {f"{_LAUNCH}.CHUNK": 1024, f"{_BACKWARD}.WIDTH": 64}
FORMS = {
    # Each program takes a tile, or all of them; a room holds a tile of each layer, or two.
    "triton": Form(cka_matrix, "triton", _LARGE | {f"{_BACKWARD}.PART": 1}, "interpreter"),
    "loop": Form(cka_matrix, "triton", _LARGE | {f"{_LAUNCH}.SIDE": 1, f"{_BACKWARD}.ROOMS": 1}, "interpreter"),
}


@pytest.mark.parametrize(("form", "case"), [(["triton", "loop"][i % 2], case) for i, case in enumerate(checks.CASES)])
def test_errs_at_most_twice_as_much_as_plain_torch(form: str, case: tuple[Any, ...]) -> None:
    FORMS[form].run(ERRS, *case)


@pytest.mark.parametrize(
    ("form", "case"), [(["triton", "loop"][i % 2], case) for i, case in enumerate(checks.GRADIENT_CASES)]
)
def test_gradients_err_at_most_three_times_as_much(form: str, case: tuple[Any, ...]) -> None:
    FORMS[form].run(GRADIENTS, *case)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    FORMS["triton"].run(check)


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"),
    [
        ("triton", "layers_kernel_skips_a_program", ERRS, checks.CASES[0]),
        ("loop", "layers_kernel_keeps_the_diagonal", ERRS, checks.CASES[4]),
        ("loop", "layers_kernel_reads_one_layer", ERRS, checks.CASES[0]),
        ("loop", "layers_kernel_forgets_the_mirror_image", ERRS, checks.CASES[0]),
        ("loop", "layers_kernel_takes_groups_for_equal", ERRS, checks.CASES[5]),
        ("loop", "layers_kernel_centers_nothing", checks.a_large_mean_costs_no_digits, ()),
        ("loop", "layers_kernel_orders_layers_anew", checks.many_layers_are_those_of_each_two, ()),
        ("loop", "layers_gradients_skip_an_item", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("triton", "layers_gradients_take_the_first_part", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("loop", "layers_gradients_keep_the_diagonal", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("loop", "layers_gradients_forget_row_sums", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("loop", "layers_gradients_mix_other_layers", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("loop", "layers_gradients_count_pairs_twice", GRADIENTS, checks.GRADIENT_CASES[0]),
        ("loop", "layers_gradients_forget_triples", GRADIENTS, checks.GRADIENT_CASES[2]),
        ("loop", "layers_gradients_forget_cells", GRADIENTS, checks.GRADIENT_CASES[2]),
        ("loop", "layers_gradients_take_groups_for_equal", GRADIENTS, checks.GRADIENT_CASES[1]),
        ("loop", "layers_gradients_center_nothing", checks.gradients_far_from_zero_keep_their_digits, ()),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_noticed(form: str, fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)
