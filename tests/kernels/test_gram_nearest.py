"""`nearest` and `argmin` in their forms: planted truths, and faults that these notice."""

from __future__ import annotations

import pytest

from tests.kernels import gram_faults, selection_faults  # noqa: F401
from tests.kernels import selection_checks as checks
from tests.kernels.selection_forms import ASSIGNING, DESCRIBED, FORMS

FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
ASSIGN = pytest.mark.parametrize("form", ASSIGNING.values(), ids=ASSIGNING)


@FORM
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test(form, check):
    form.run(check)


@FORM
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_any_shape_agrees_with_differences(form, shape):
    if form.impl == "triton" and "l1" in shape:
        pytest.skip("it has no kernel of differences")
    form.run(checks.agrees_with_differences, *shape)


def test_full_lists_are_looked_behind():
    FORMS["loop"].run(checks.full_lists_are_looked_behind)


@pytest.mark.parametrize(
    "check",
    [
        checks.refusals,
        checks.no_precision_changes_the_neighbors,
        checks.addresses_take_64_bits,
        checks.it_is_one_launch,
        checks.torch_finds_the_operator_in_order,
    ],
    ids=lambda check: check.__name__,
)
def test_the_kernel(check):
    FORMS["triton"].run(check)


# Widths of whole tiles, of several, and of none that starts at multiples of 16 bytes; one row; one that is broken.
BY_DESCRIPTORS = [
    (checks.agrees_with_differences, *checks.SHAPES[3]),
    (checks.agrees_with_differences, 70, 65, 64, 16, "squared", 3.0),
    (checks.broken_rows_are_near_nothing,),
    (checks.no_rows_and_no_columns,),
    (checks.strides_do_not_matter,),
    (checks.addresses_take_64_bits,),
]


@pytest.mark.parametrize("check", BY_DESCRIPTORS, ids=lambda check: check[0].__name__)
def test_rows_that_descriptors_load(check):
    DESCRIBED.run(*check)


@pytest.mark.parametrize("fault", ["descriptors_start_at_the_second_row", "descriptors_know_wider_rows"])
def test_a_fault_of_descriptors_is_noticed(fault):
    with pytest.raises(AssertionError):
        DESCRIBED.run(checks.ordinary_rows_are_not_compared_twice, fault=fault)


@ASSIGN
@pytest.mark.parametrize(
    "check",
    [checks.codes_gather_their_rows, checks.the_first_of_equal_codes_is_taken],
    ids=lambda check: check.__name__,
)
def test_codes(form, check):
    form.run(check)


NOTICED = [
    ("blocked", "selection_trusts_products", checks.what_products_cannot_tell_apart, ()),
    ("tiles", "selection_is_always_certain", checks.duplicates_are_zeros_in_order, ()),
    ("tiles", "selection_is_always_certain", checks.what_products_cannot_tell_apart, ()),
    ("tiles", "selection_forgets_the_mirror_image", checks.rows_on_a_line, ()),
    ("tiles", "gram_takes_the_same_rows_for_symmetric", checks.agrees_with_differences, checks.SHAPES[1]),
    ("tiles", "selection_forgets_the_last_columns", checks.agrees_with_differences, checks.SHAPES[1]),
    ("blocked", "selection_takes_the_last_of_equals", checks.neighbors_on_a_lattice, ()),
    ("tiles", "selection_meets_the_row_itself", checks.rows_on_a_line, ()),
    ("tiles", "selection_meets_the_row_itself", checks.agrees_with_differences, checks.SHAPES[2]),
    ("tiles", "selection_takes_broken_rows_for_zeros", checks.broken_rows_are_near_nothing, ()),
    ("blocked", "selection_works_in_single_precision", checks.sizes_at_the_edge_of_single_precision, ()),
    ("tiles", "selection_begins_too_low", checks.agrees_with_differences, checks.SHAPES[1]),
    ("blocked", "selection_clears_broken_rows", checks.the_arguments_leave_as_they_came, ()),
    ("triton", "nearest_kernel_meets_the_row_itself", checks.rows_on_a_line, ()),
    ("loop", "nearest_kernel_forgets_the_groups", checks.agrees_with_differences, checks.SHAPES[2]),
    ("triton", "nearest_kernel_forgets_the_edge", checks.ordinary_rows_are_not_compared_twice, ()),
    ("triton", "nearest_kernel_skips_a_program", checks.rows_on_a_line, ()),
    ("loop", "nearest_kernel_reads_one_chunk", checks.agrees_with_differences, checks.SHAPES[3]),
    ("triton", "nearest_kernel_trusts_products", checks.what_products_cannot_tell_apart, ()),
    ("loop", "nearest_kernel_trusts_full_lists", checks.full_lists_are_looked_behind, ()),
    ("triton", "nearest_kernel_ignores_the_strides", checks.ordinary_rows_are_not_compared_twice, ()),
    ("triton", "nearest_kernel_trusts_tf32", checks.no_precision_changes_the_neighbors, ()),
    ("triton", "nearest_kernel_multiplies_one_part", checks.no_precision_changes_the_neighbors, ()),
    ("blocked", "selection_is_always_certain", checks.a_crowd_is_compared_again_and_counted, ()),
    ("tiles", "selection_has_no_room", checks.rows_in_the_worst_order, ()),
]


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_noticed(form, fault, check, arguments):
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("codes_count_broken_rows", checks.codes_gather_their_rows),
        ("selection_takes_the_last_of_equals", checks.the_first_of_equal_codes_is_taken),
    ],
)
def test_a_fault_of_codes_is_noticed(fault, check):
    with pytest.raises(AssertionError):
        ASSIGNING["blocked"].run(check, fault=fault)
