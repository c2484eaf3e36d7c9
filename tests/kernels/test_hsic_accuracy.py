"""The errors of `hsic_sums`, its Triton kernel in the interpreter, which multiplies everything as float32."""

from __future__ import annotations

import pytest
import torch

from tests.kernels import hsic_accuracy as accuracy
from tests.kernels.hsic_checks import LINEAR, WIDE
from tests.kernels.hsic_forms import FORMS

SUMMING = pytest.mark.parametrize("form", [FORMS[name] for name in ("blocked", "tiles", "triton", "loop")])
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)


@SUMMING
@DTYPES
@pytest.mark.parametrize("kernels", [(LINEAR, LINEAR), (WIDE, WIDE), (LINEAR, WIDE)], ids=str)
def test_errs_at_most_twice_as_much_as_plain_torch(form, dtype, kernels):
    form.run(accuracy.errs_at_most_twice_as_much_as_plain_torch, dtype, *kernels, 300, 24)


@pytest.mark.parametrize("precision", [None, "bf16x6", "tf32", "ieee"])
def test_float32_errs_as_its_precision_allows(precision):
    check = accuracy.errs_at_most_twice_as_much_as_plain_torch
    FORMS["triton"].run(check, torch.float32, LINEAR, WIDE, 200, 24, precision)


@SUMMING
@DTYPES
@pytest.mark.parametrize("precision", [None, "tf32"])
def test_small_integers_are_exact_in_any_precision(form, dtype, precision):
    form.run(accuracy.small_integers_are_exact_in_any_precision, dtype, precision)


@pytest.mark.parametrize("form", ["tiles", "loop"])
def test_sums_of_tiles_are_double(form):
    FORMS[form].run(accuracy.sums_of_tiles_are_double)


@SUMMING
def test_far_from_the_origin_distances_keep_their_digits(form):
    form.run(accuracy.far_from_the_origin_distances_keep_their_digits)


def test_addresses_take_64_bits():
    FORMS["triton"].run(accuracy.addresses_take_64_bits)


NOTICED = [
    ("tiles", "hsic_sums_tiles_in_single", accuracy.sums_of_tiles_are_double, ()),
    ("loop", "hsic_kernel_sums_tiles_in_single", accuracy.sums_of_tiles_are_double, ()),
    ("blocked", "rbf_rows_are_not_moved", accuracy.far_from_the_origin_distances_keep_their_digits, ()),
    ("triton", "rbf_rows_are_not_moved", accuracy.far_from_the_origin_distances_keep_their_digits, ()),
    (
        "tiles",
        "hsic_tiles_are_half",
        accuracy.errs_at_most_twice_as_much_as_plain_torch,
        (torch.bfloat16, WIDE, WIDE, 300, 24),
    ),
    (
        "triton",
        "hsic_kernel_rounds_its_rows",
        accuracy.errs_at_most_twice_as_much_as_plain_torch,
        (torch.float32, WIDE, WIDE, 300, 24),
    ),
]


@pytest.mark.parametrize(
    ("form", "fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_noticed(form, fault, check, arguments):
    with pytest.raises(AssertionError):
        FORMS[form].run(check, *arguments, fault=fault)


def test_addresses_in_32_bits_are_noticed():
    # A wild address reads anything, or ends the process.
    with pytest.raises((AssertionError, RuntimeError)):
        FORMS["triton"].run(accuracy.addresses_take_64_bits, fault="hsic_kernel_counts_in_32_bits")
