"""Sums over pairs of rows by the Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import gram_checks as checks
from tests.kernels.forms import Form, always

_LAUNCH, _TILING = "lamina_kernels.gram.sums.launch", "lamina_kernels.gram.tiling"


def tiles(*arguments: Any, **options: Any) -> Any:
    from lamina_kernels.gram.tiling import Tiling

    return Tiling(64, 64, 64, 4, 1, 64, together=2)


def described_tiles(*arguments: Any, **options: Any) -> Any:
    from lamina_kernels.gram.tiling import Tiling

    return Tiling(64, 64, 64, 4, 1, together=2, described=True)


_TILES = {f"{_TILING}.sums": tiles, f"{_TILING}.softmax": tiles, f"{_TILING}.gradients": tiles}
TRITON = Form(checks.reductions, "triton", _TILES, "interpreter")
# Programs share the rows of y.
SPLIT = TRITON._replace(settings=_TILES | {f"{_LAUNCH}.COLUMNS": 64})
# Rows come by descriptors, as on Hopper and Blackwell.
DESCRIBED = SPLIT._replace(
    settings={
        **SPLIT.settings,
        f"{_TILING}.sums": described_tiles,
        "lamina_kernels.tiles.descriptors.takes_descriptors": always,
    }
)


@pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_errs_at_most_twice_as_much_as_plain_torch(case: dict[str, Any]) -> None:
    SPLIT.run(checks.errs_at_most_twice_as_much_as_plain_torch, case)


@pytest.mark.parametrize("case", checks.GRADIENT_CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_gradients_err_at_most_three_times_as_much(case: dict[str, Any]) -> None:
    SPLIT.run(checks.gradients_err_at_most_three_times_as_much, case)


@pytest.mark.parametrize("case", checks.CASES[::6], ids=lambda case: " ".join(map(str, case.values())))
def test_bfloat16_errs_at_most_twice_as_much_as_plain_torch(case: dict[str, Any]) -> None:
    DESCRIBED.run(checks.errs_at_most_twice_as_much_as_plain_torch, case | {"dtype": torch.bfloat16})


@pytest.mark.parametrize("case", checks.GRADIENT_CASES[::6], ids=lambda case: " ".join(map(str, case.values())))
def test_gradients_of_bfloat16_err_at_most_three_times_as_much(case: dict[str, Any]) -> None:
    SPLIT.run(checks.gradients_err_at_most_three_times_as_much, case | {"dtype": torch.bfloat16})


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    TRITON.run(check)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_far_rows_keep_their_digits(dtype: torch.dtype) -> None:
    TRITON.run(checks.far_rows_keep_their_digits, dtype)
    TRITON.run(checks.gradients_far_from_zero_keep_their_digits, dtype)


@pytest.mark.parametrize("precision", [None, "bf16x6", "fp16x3", "tf32", "ieee"])
def test_float32_errs_as_its_precision_allows(precision: str | None) -> None:
    TRITON.run(checks.float32_errs_as_its_precision_allows, precision)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "own"])
def test_the_widest_rows(kernel: str) -> None:
    case = _WHOLE | {"kernel": kernel, "width": 16_384, "n": 3, "m": 5}
    TRITON.run(checks.errs_at_most_twice_as_much_as_plain_torch, case)
    if kernel != "own":
        TRITON.run(checks.gradients_err_at_most_three_times_as_much, case)


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        # Rows that are loaded whole, an odd number of chunks, an even one, and widths of no 16 bytes.
        *((checks.small_integers_are_exact, (None, width)) for width in (24, 65, 110)),
        (checks.addresses_take_64_bits, ()),
        (checks.nothing_beside_the_rows_is_touched, ()),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_rows_that_descriptors_load(check: Any, arguments: tuple[Any, ...]) -> None:
    DESCRIBED.run(check, *arguments)


@pytest.mark.parametrize("fault", ["descriptors_start_at_the_second_row", "descriptors_know_wider_rows"])
def test_a_fault_of_descriptors_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        DESCRIBED.run(checks.small_integers_are_exact, None, 65, fault=fault)


@pytest.mark.parametrize(
    ("precision", "width"), [(None, 24), (None, 130), ("bf16x3", 100), ("tf32", 96), ("ieee", 128)]
)
def test_small_integers_are_exact(precision: str | None, width: int) -> None:
    """Whole rows; chunks of which the last is not whole; whole chunks, one or several in a turn."""
    TRITON.run(checks.small_integers_are_exact, precision, width)


_WHOLE: dict[str, Any] = {
    "kernel": "rbf", "which": "product", "width": 100, "n": 70, "m": 129, "values": 3, "exclude": "none",
    "dtype": torch.float32,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("gram_kernel_keeps_the_diagonal", {"exclude": "self"}),
        ("gram_kernel_ignores_groups", {"exclude": "groups"}),
        ("gram_kernel_skips_a_program", {}),
        ("gram_kernel_reads_one_chunk", {}),
        ("gram_kernel_forgets_a_part_of_y", {}),
        ("gram_kernel_forgets_the_norms", {"kernel": "own"}),
    ],
)
def test_a_fault_is_noticed(fault: str, changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        SPLIT.run(checks.errs_at_most_twice_as_much_as_plain_torch, _WHOLE | changes, fault=fault)


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("gram_kernel_forgets_the_softmax", {"which": "softmax"}),
        ("gram_kernel_takes_another_slope", {"kernel": "matern 3/2"}),
        ("gram_kernel_forgets_the_other_factor", {"kernel": "product"}),
        ("gram_kernel_counts_one_part_of_the_parameters", {}),
        ("gram_kernel_skips_a_program", {}),
        ("gram_kernel_skips_a_program", {"width": 100}),
        ("gram_kernel_pulls_the_first_columns", {"width": 100}),
        ("gram_kernel_forgets_the_sign", {"kernel": "distance, norm 3"}),
        ("gram_kernel_counts_pairs_twice", {"exclude": "self"}),
        ("gram_gradients_take_a_softmax_for_symmetric", {"exclude": "self", "which": "softmax"}),
    ],
)
def test_a_fault_of_the_gradients_is_noticed(fault: str, changes: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        SPLIT.run(checks.gradients_err_at_most_three_times_as_much, _WHOLE | {"width": 17} | changes, fault=fault)


@pytest.mark.parametrize(
    ("fault", "check", "arguments"),
    [
        ("gram_kernel_moves_no_rows", checks.far_rows_keep_their_digits, (torch.float32,)),
        ("gram_kernel_moves_no_rows", checks.far_rows_keep_their_digits, (torch.float16,)),
        ("gram_kernel_moves_no_rows", checks.gradients_far_from_zero_keep_their_digits, (torch.float32,)),
        ("gram_kernel_hides_missing_norms", checks.rows_without_a_squared_norm_give_no_wrong_numbers, ()),
        ("gram_kernel_rounds_to_eight_bits", checks.float32_errs_as_its_precision_allows, ("tf32",)),
        ("gram_kernel_trusts_lost_digits", checks.near_rows_keep_their_digits, ()),
        ("gram_kernel_takes_rows_for_others", checks.near_rows_keep_their_digits, ()),
        ("gram_kernel_forgets_the_units", checks.float32_errs_as_its_precision_allows, ("tf32",)),
        ("gram_kernel_scales_rows_together", checks.rows_of_any_size_keep_their_digits, ()),
        ("gram_kernel_scales_no_rows", checks.rows_of_any_size_keep_their_digits, ()),
        ("gram_kernel_rounds_to_eight_bits", checks.eleven_bits_of_wide_rows_leave_four_digits, ()),
        ("gram_kernel_rounds_values", checks.eleven_bits_of_wide_rows_leave_four_digits, ()),
        ("gram_kernel_takes_all_chunks_for_whole", checks.small_integers_are_exact, ("ieee", 112)),
        ("gram_kernel_forgets_a_part", checks.parts_of_numbers_are_multiplied_as_said, ()),
        ("gram_kernel_multiplies_first_parts_alone", checks.parts_of_numbers_are_multiplied_as_said, ()),
        ("gram_kernel_forgets_a_part", checks.float32_errs_as_its_precision_allows, (None,)),
        ("gram_kernel_forgets_a_part", checks.wide_rows_are_multiplied_as_float32, ()),
        ("gram_kernel_forgets_the_units", checks.wide_rows_are_multiplied_as_float32, ()),
        ("gram_kernel_loses_what_rounding_loses", checks.sums_of_tiles_are_as_good_as_one, ()),
        ("gram_kernel_divides_by_every_weight", checks.a_weight_of_zero_has_its_gradient, ()),
        ("gram_gradients_are_all_wanted", checks.what_is_asked_for_alone_is_computed, ()),
        ("gram_kernel_forgets_the_parameters_of_others", checks.what_is_asked_for_alone_is_computed, ()),
    ],
)
def test_a_fault_in_the_digits_is_noticed(fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(AssertionError):
        TRITON.run(check, *arguments, fault=fault)
