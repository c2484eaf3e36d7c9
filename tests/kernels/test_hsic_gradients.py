"""Gradients of the sums of two kernels: in plain torch and in Triton's interpreter, and that faults are noticed."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, hsic_sums
from tests.faults import broken
from tests.kernels import gram_dependence_faults as gram_dependence_faults  # known where checks run
from tests.kernels.hsic_checks import normal
from tests.kernels.hsic_forms import FORMS
from tests.kernels.hsic_gradient_checks import (
    PROBLEMS,
    gradients_are_those_of_matrices,
    gradients_err_at_most_three_times_as_much,
)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_gradients_are_those_of_matrices_and_have_gradients(problem: dict[str, Any]) -> None:
    gradients_are_those_of_matrices(partial(hsic_sums, impl="blocked"), problem)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_gradients_in_triton_err_at_most_three_times_as_much(problem: dict[str, Any]) -> None:
    FORMS["triton"].run(gradients_err_at_most_three_times_as_much, problem)


# Of so many rows of so few columns the sums of dot products are those of moments, whose gradients torch finds; but for
# groups, whose sums alone are.
LINEAR = [{**problem, "linear": True} for problem in PROBLEMS[:4]]


@pytest.mark.parametrize("problem", LINEAR, ids=str)
def test_gradients_of_dot_products_are_those_of_matrices(problem: dict[str, Any]) -> None:
    gradients_are_those_of_matrices(partial(hsic_sums, impl="blocked"), problem)


def test_a_fault_of_moments_is_noticed() -> None:
    with broken("hsic_moments_keep_the_diagonal"), pytest.raises(AssertionError):
        gradients_are_those_of_matrices(partial(hsic_sums, impl="blocked"), LINEAR[0])


def test_gradients_of_dot_products_visit_no_pair(monkeypatch: Any) -> None:
    from lamina_kernels.gram.paired import op

    monkeypatch.setattr(op, "gradients", None)
    x, y = (normal(40, d, seed=d).requires_grad_() for d in (3, 2))
    torch.autograd.grad(hsic_sums(x, y, impl="blocked").product.sum(), [x, y])


@pytest.mark.parametrize("fault", ["hsic_gradients_keep_the_diagonal", "hsic_gradients_forget_the_other_kernel"])
def test_a_fault_is_noticed(fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        gradients_are_those_of_matrices(partial(hsic_sums, impl="blocked"), PROBLEMS[0])


def rows_that_are_others_on_one_side_alone() -> None:
    """The rows of x are paired with themselves, those of y are not: only in K a row meets itself."""
    x, y, other = (normal(9, 2, seed=seed).double().requires_grad_() for seed in range(3))
    made = []
    for impl in ("blocked", "reference"):
        product = hsic_sums(x, y, x, other, kernel_x=RBF(1.0), kernel_y=RBF(1.0), impl=impl).product
        made.append(torch.autograd.grad(product.square().sum(), [x, y, other]))
    torch.testing.assert_close(*made, rtol=1e-10, atol=1e-12)


def test_rows_that_are_others_on_one_side_alone() -> None:
    rows_that_are_others_on_one_side_alone()


def test_one_side_that_is_taken_for_both_is_noticed() -> None:
    with broken("hsic_gradients_take_one_side_for_both"), pytest.raises((AssertionError, RuntimeError)):
        rows_that_are_others_on_one_side_alone()


def test_a_fault_in_triton_is_noticed() -> None:
    with pytest.raises(AssertionError):
        FORMS["triton"].run(gradients_err_at_most_three_times_as_much, PROBLEMS[0], fault="gram_kernel_skips_a_program")


def test_the_default_has_gradients_and_a_sum_that_nothing_depends_on_costs_none(monkeypatch: Any) -> None:
    from lamina_kernels.gram.paired import op

    asked: list[str] = []
    whole = op.gradients
    monkeypatch.setattr(op, "gradients", lambda p, *rest: asked.append(p[5]) or whole(p, *rest))
    x, y = (normal(9, d, seed=d).requires_grad_() for d in (3, 2))
    found = hsic_sums(x, y, kernel_x=RBF(1.0))
    assert found.impl == "blocked"
    torch.autograd.grad(found.product.sum() + found.sums_x.sum(), x)
    assert len(asked) == 2
    with torch.no_grad():
        assert not hsic_sums(x, y).product.requires_grad
    empty = hsic_sums(x[:0], y[:0], impl="blocked").product.sum()
    assert not torch.autograd.grad(empty, x)[0].any()
