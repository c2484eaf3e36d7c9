"""`hsic_sums` on a GPU: the checks of tests/kernels, and what the interpreter cannot show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, hsic_sums
from tests.kernels import hsic_accuracy as accuracy
from tests.kernels import hsic_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import LINEAR, NARROW, WIDE, normal
from tests.kernels.hsic_gradient_checks import PROBLEMS, gradients_err_at_most_three_times_as_much

pytestmark = pytest.mark.gpu

TRITON = Form(hsic_sums, "triton", {}, "cuda")
FORM = pytest.mark.parametrize(
    "form",
    [
        TRITON,
        TRITON._replace(settings={"lamina_kernels.gram.paired.launch.PROGRAMS": 1}),
        TRITON._replace(impl="blocked"),
    ],
    ids=["triton", "loop", "blocked"],
)
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
WIDTHS = pytest.mark.parametrize("width", [16, 64, 200, 768])
KERNELS = pytest.mark.parametrize(
    "kernels",
    [
        lambda width: (LINEAR, LINEAR),
        lambda width: (RBF(width**0.5), RBF(width**0.5)),
        lambda width: (LINEAR, RBF(width**0.5)),
    ],
    ids=["linear", "rbf", "linear-rbf"],
)


@FORM
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test(form, check):
    form.run(check)


@FORM
@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_any_shape_agrees_with_dense_double_precision(form, shape):
    form.run(checks.agrees_with_dense, *shape)


@FORM
@pytest.mark.parametrize("kernels", [(LINEAR, LINEAR), (NARROW, WIDE)], ids=str)
def test_blocks_add_up_to_the_whole(form, kernels):
    form.run(checks.blocks_add_up_to_the_whole, *kernels)


@FORM
@HALF
@KERNELS
@WIDTHS
def test_half_precision_errs_at_most_twice_as_much_as_plain_torch(form, dtype, kernels, width):
    check = accuracy.errs_at_most_twice_as_much_as_plain_torch
    form.run(check, dtype, *kernels(width), 500, width, None, dtype)


@pytest.mark.parametrize("precision", ["bf16x6", "tf32", "ieee"])
@KERNELS
@WIDTHS
def test_float32_errs_as_its_precision_allows(precision, kernels, width):
    # Tensor cores cut digits off when they add: ten times is what the tests of PyTorch's FlexAttention allow float32.
    times = 2 if precision == "ieee" else 10
    check = accuracy.errs_at_most_twice_as_much_as_plain_torch
    TRITON.run(check, torch.float32, *kernels(width), 500, width, precision, torch.float32, times)


@FORM
@DTYPES
@pytest.mark.parametrize("precision", [None, "bf16x6", "tf32", "ieee"])
def test_small_integers_are_exact_in_any_precision(form, dtype, precision):
    form.run(accuracy.small_integers_are_exact_in_any_precision, dtype, precision)


@FORM
def test_sums_of_tiles_are_double(form):
    form.run(accuracy.sums_of_tiles_are_double)


@FORM
def test_far_from_the_origin_distances_keep_their_digits(form):
    form.run(accuracy.far_from_the_origin_distances_keep_their_digits)


@FORM
def test_addresses_take_64_bits(form):
    form.run(accuracy.addresses_take_64_bits)


NOTICED = [
    ("hsic_kernel_keeps_the_diagonal", checks.three_rows_by_hand, ()),
    ("hsic_kernel_reads_one_chunk", checks.agrees_with_dense, checks.SHAPES[7]),
    ("hsic_kernel_forgets_the_order", checks.groups_add_up_and_keep_to_themselves, ()),
    ("hsic_kernel_skips_a_program", checks.every_sum_is_written, ()),
    ("hsic_kernel_tiles_as_it_likes", checks.the_same_bits_every_time, ()),
    (
        "hsic_kernel_rounds_its_rows",
        accuracy.errs_at_most_twice_as_much_as_plain_torch,
        (torch.float32, WIDE, WIDE, 300, 24, None, torch.float32, 10),
    ),
]


@pytest.mark.parametrize(("fault", "check", "arguments"), NOTICED, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault_is_noticed(fault, check, arguments):
    with pytest.raises(AssertionError):
        TRITON.run(check, *arguments, fault=fault)


def test_the_default_is_triton_but_for_moments_and_double():
    x = normal(300, 5, seed=0).cuda()
    assert hsic_sums(x, x, kernel_x=NARROW).impl == "triton"
    assert hsic_sums(x, x).impl == "blocked"
    assert hsic_sums(x.double(), x.double(), kernel_x=NARROW).impl == "blocked"


def test_memory_does_not_grow_with_the_pairs():
    # Each matrix of 60,000 rows would take 14 GB.
    x = normal(60_000, 16, seed=1, dtype=torch.bfloat16).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    hsic_sums(x, x, kernel_x=WIDE, kernel_y=WIDE, impl="triton")
    assert torch.cuda.max_memory_allocated() - before < 64 * 2**20


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_gradients_err_at_most_three_times_as_much(problem: dict[str, Any]) -> None:
    # Tensor cores cut digits off when they add, see test_gram_layers.
    times = 10 if problem["dtype"] == torch.float32 else 3
    TRITON.run(gradients_err_at_most_three_times_as_much, problem, times)
