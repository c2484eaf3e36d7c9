"""Half precision, by the error rule of FlashAttention's tests: an op may err twice as much as plain torch does."""

from __future__ import annotations

import pytest
import torch

from tests.faults import broken
from tests.kernels.test_linear_product import linear_product


def within_twice_the_error_of_plain_torch(dtype: torch.dtype, *, block: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # Positive entries: partial sums grow, so that a sum kept in half precision loses its low digits.
    x, y, v = (torch.rand(*shape, generator=generator).to(dtype) for shape in ((65, 24), (3001, 24), (3001, 5)))
    v = v / 4096
    truth = linear_product(x.double(), v.double(), y.double(), impl="reference")
    plain = (x @ y.T) @ v
    value = linear_product(x, v, y, impl="blocked", block=block)
    assert value.dtype == dtype
    rounded = truth.to(dtype)
    atol = 2 * (rounded + 0.3 - 0.3 - rounded).abs().max().item()
    error, allowed = ((result.double() - truth).abs().max().item() for result in (value, plain))
    assert error <= 2 * allowed + atol


HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@HALF
@pytest.mark.parametrize("block", [1, 64, 4096])
def test_the_blocked_form_errs_at_most_twice_as_much_as_plain_torch(dtype, block):
    within_twice_the_error_of_plain_torch(dtype, block=block)


@HALF
def test_sums_in_half_precision_would_be_noticed(dtype):
    with broken("gram_sums_in_the_dtype_of_its_input"), pytest.raises(AssertionError):
        within_twice_the_error_of_plain_torch(dtype, block=1)


def test_double_is_summed_in_double():
    # 2^30 + 2^-20 needs 51 bits of significand.
    x, v = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[2.0**30], [2.0**-20]], dtype=torch.float64)
    assert linear_product(x, v, impl="blocked", block=1)[0, 0].item() == 2.0**30 + 2.0**-20


def test_single_precision_agrees_with_double_to_its_rounding():
    generator = torch.Generator().manual_seed(1)
    x, v = torch.randn(501, 33, generator=generator), torch.randn(501, 3, generator=generator)
    truth = linear_product(x.double(), v.double(), impl="reference")
    torch.testing.assert_close(linear_product(x, v, impl="blocked", block=64).double(), truth, rtol=0, atol=2e-3)
