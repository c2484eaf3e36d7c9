"""Every kernel in every reduction: tiles against the matrix, and the Triton kernels, in Triton's interpreter."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, Distance, Linear
from tests.faults import broken
from tests.kernels import gram_reductions as checks
from tests.kernels.forms import Form
from tests.kernels.gram_kernels import CASES, leaves, small_layers, small_tiles
from tests.kernels.gram_reductions import REDUCTIONS, Rows, reduce, rows_of

# Sums of kernel values have tests of their own, in test_gram_sums and test_gram_triton.
OTHERS = list(REDUCTIONS)[4:]
# A discrepancy has a check of its own; `hsic` launches what `cka_matrix` does.
LAUNCHING = ["difference_moments", "hsic_sums", "cka_matrix"]
TRITON = Form(reduce, "triton", {}, "interpreter")


def tiles_are_the_matrix(name: str, reductions: list[str] = OTHERS) -> None:
    """Values, gradients by rows, weights and hyperparameters, and gradients of these; rows have duplicates."""
    case = CASES[name]

    def run(impl: str) -> Any:
        return lambda which, rows, kernel: reduce(which, rows, kernel, impl=impl)

    for which in reductions:
        rows = rows_of(torch.float64)
        with small_tiles(), small_layers(6):
            found = checks.gradients(run("blocked"), which, rows, case.make(*leaves(case)), twice=True)
        expected = checks.gradients(run("reference"), which, rows, case.make(*leaves(case)), twice=True)
        for one, other in zip(found, expected, strict=True):
            scale = 1 + other.detach().abs().max()
            torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_tiles_are_the_matrix(name: str) -> None:
    tiles_are_the_matrix(name)


@pytest.mark.parametrize(
    ("fault", "name", "reduction"),
    [
        ("gram_takes_another_slope", "matern 3/2", "mmd"),
        ("gram_forgets_the_other_factor", "product", "hsic_sums"),
        ("gram_forgets_the_norms", "own", "cka_matrix"),
        ("dependence_gradient_forgets_row_sums", "arc-cosine 1", "hsic"),
        ("differences_take_columns_for_rows", "chebyshev", "difference_moments"),
    ],
)
def test_a_fault_is_noticed(fault: str, name: str, reduction: str) -> None:
    with broken(fault), pytest.raises((AssertionError, RuntimeError)):
        tiles_are_the_matrix(name, [reduction])


def block_sizes_and_the_order_of_rows_do_not_matter(reduction: str) -> None:
    rows = rows_of(torch.float64)
    generator = torch.Generator().manual_seed(0)
    mine, theirs = (torch.randperm(len(each), generator=generator) for each in (rows.x, rows.y))
    turned = Rows(rows.x[mine], rows.y[theirs], rows.z[mine], rows.v[theirs], rows.weights[theirs])
    for kernel in (RBF(2.0), Linear() * Distance(1)):
        whole = reduce(reduction, rows, kernel, impl="blocked")
        with small_tiles(), small_layers(6):
            found = reduce(reduction, turned, kernel, impl="blocked")
        for one, other in zip(found, whole, strict=True):
            expected = other[mine] if other.shape[:1] == mine.shape else other
            scale = expected.abs().max()
            torch.testing.assert_close(one / scale, expected / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_block_sizes_and_the_order_of_rows_do_not_matter(reduction: str) -> None:
    block_sizes_and_the_order_of_rows_do_not_matter(reduction)


@pytest.mark.parametrize(
    ("fault", "reduction"),
    [
        ("hsic_tiles_have_no_mirror_image", "hsic_sums"),
        ("dependence_has_no_mirror_image", "biased hsic"),
    ],
)
def test_tiles_that_matter_are_noticed(fault: str, reduction: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        block_sizes_and_the_order_of_rows_do_not_matter(reduction)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_of_half_precision_are_rounded_once(reduction: str, dtype: torch.dtype) -> None:
    """Plain torch computes in single precision: what differs is the last rounding."""
    blocked = partial(reduce, impl="blocked")
    checks.gradients_err_at_most_three_times_as_much(blocked, reduction, "own in a tree", dtype, 1)


@pytest.mark.parametrize("reduction", [name for name in REDUCTIONS if name != "difference_moments"])
def test_the_widest_rows(reduction: str) -> None:
    rows = rows_of(torch.float64, n=9, m=5, d=16_384)
    for kernel in (RBF(120.0), Linear(), Distance(1)):
        found, expected = (reduce(reduction, rows, kernel, impl=impl) for impl in ("blocked", "reference"))
        for one, other in zip(found, expected, strict=True):
            scale = other.abs().max()
            torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reduction", LAUNCHING)
def test_every_kernel_errs_at_most_twice_as_much_as_plain_torch(reduction: str) -> None:
    TRITON.run(checks.every_kernel_errs_at_most_twice_as_much, reduction)


def test_every_discrepancy_has_the_digits_of_its_means() -> None:
    TRITON.run(checks.discrepancies_have_the_digits_of_their_means, "mmd")


@pytest.mark.parametrize("reduction", LAUNCHING)
def test_gradients_in_triton_err_at_most_three_times_as_much(reduction: str) -> None:
    for name in ("rbf of each", "distance, norm 3", "product"):
        TRITON.run(checks.gradients_err_at_most_three_times_as_much, reduction, name)
