from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lamina_kernels.gram import Linear, product
from lamina_kernels.gram.sums import linear
from tests.faults import broken


def linear_product(
    x: torch.Tensor, v: torch.Tensor, y: torch.Tensor | None = None, *, impl: Any, block: int = 4096
) -> torch.Tensor:
    """(X Yᵀ) V in a form, as X (Yᵀ V) if the form is blocked, in tiles of `block` rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "BLOCK", block)
        patch.setattr(linear, "cheaper", lambda p, v: True)
        return product(x, y, v, kernel=Linear(), impl=impl)


def integers(*shape: int, seed: int) -> torch.Tensor:
    """Small whole numbers in float64: their sums and products are exact, so forms must agree to the bit."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-4, 5, shape, generator=generator).double()


FORMS = pytest.mark.parametrize("impl", ["reference", "blocked"])


@FORMS
def test_rows_of_an_orthogonal_matrix_give_v_back(impl):
    x = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    v = integers(40, 3, seed=1)
    torch.testing.assert_close(linear_product(x, v, impl=impl, block=7), v, atol=1e-13, rtol=0)


@FORMS
def test_equal_rows_of_ones_sum_the_columns_of_v(impl):
    v = integers(101, 4, seed=2)
    value = linear_product(torch.ones(101, 1).double(), v, impl=impl, block=10)
    assert torch.equal(value, v.sum(0).expand(101, 4))


@FORMS
def test_a_planted_key_is_the_only_one_that_is_read(impl):
    # Row 5 of Y is the only one with a part along the rows of X.
    x, y, v = torch.zeros(3, 4).double(), torch.zeros(9, 4).double(), integers(9, 2, seed=3)
    x[:, 1], y[5, 1], y[:, 2] = 2.0, 3.0, 7.0
    assert torch.equal(linear_product(x, v, y, impl=impl, block=4), 6.0 * v[5].expand(3, 2))


def blocked_equals_an_integer_product(n: int, m: int, d: int, k: int, block: int) -> None:
    x, y, v = integers(n, d, seed=0), integers(m, d, seed=1), integers(m, k, seed=2)
    expected = (x.long() @ y.long().T) @ v.long()
    value = linear_product(x, v, y, impl="blocked", block=block)
    assert value.shape == (n, k)
    assert torch.equal(value, expected.double())


@given(n=st.integers(0, 33), m=st.integers(0, 33), d=st.integers(0, 9), k=st.integers(0, 5), block=st.integers(1, 40))
def test_the_blocked_form_is_exact_at_any_shape_and_tile(n, m, d, k, block):
    blocked_equals_an_integer_product(n, m, d, k, block)


@pytest.mark.parametrize("name", ["gram_drops_the_last_tile", "gram_forgets_y"])
def test_a_fault_in_the_blocked_form_is_noticed(name):
    with broken(name), pytest.raises(AssertionError):
        blocked_equals_an_integer_product(33, 33, 5, 2, 8)


@FORMS
def test_one_row_is_its_squared_norm_times_v(impl):
    x = torch.tensor([[3.0, 4.0]])
    assert linear_product(x, torch.tensor([[2.0]]), impl=impl).tolist() == [[50.0]]


@FORMS
def test_no_rows_give_no_rows_and_a_sum_over_none_is_zero(impl):
    empty, x = torch.empty(0, 3), torch.ones(2, 3)
    assert linear_product(empty, torch.empty(0, 4), impl=impl).shape == (0, 4)
    assert torch.equal(linear_product(x, torch.empty(0, 4), empty, impl=impl), torch.zeros(2, 4))


@FORMS
def test_strides_do_not_matter(impl):
    x, v = integers(3, 60, seed=4).T[::2], integers(30, 8, seed=5)[:, ::3]
    assert not x.is_contiguous()
    assert not v.is_contiguous()
    expected = linear_product(x.contiguous(), v.contiguous(), impl=impl, block=7)
    assert torch.equal(linear_product(x, v, impl=impl, block=7), expected)


@pytest.fixture
def poisoned():
    """Memory that is allocated and not yet written holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64])
def test_every_entry_of_the_result_is_written(rows):
    assert torch.empty(3).isnan().all()
    assert linear_product(torch.ones(rows, 2), torch.ones(rows, 3), impl="blocked", block=8).isfinite().all()


def test_gradients_of_the_blocked_form_agree_with_finite_differences():
    generator = torch.Generator().manual_seed(6)
    x, y, v = (
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((5, 3), (7, 3), (7, 2))
    )
    assert torch.autograd.gradcheck(lambda *t: linear_product(*t, impl="blocked", block=3), (x, v, y))


def test_gradients_flow_through_both_places_of_one_tensor():
    x = integers(9, 3, seed=7).requires_grad_()
    v = integers(9, 2, seed=8)
    gradients = [
        torch.autograd.grad(linear_product(x, v, impl=impl, block=4).square().sum(), x)[0]
        for impl in ("reference", "blocked")
    ]
    assert torch.equal(*gradients)


@FORMS
def test_the_arguments_leave_as_they_came(impl):
    x, v = integers(9, 3, seed=9), integers(9, 2, seed=10)
    x_before, v_before = x.clone(), v.clone()
    linear_product(x, v, impl=impl, block=2)
    assert torch.equal(x, x_before)
    assert torch.equal(v, v_before)
