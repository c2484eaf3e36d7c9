"""`Distance()` in the two forms that it has."""

from __future__ import annotations

import pytest
import torch

from lamina_kernels.gram import RBF, Distance, hsic_sums
from tests.faults import broken
from tests.kernels.hsic_forms import FORMS

PLAIN = [name for name, form in FORMS.items() if form.device == "cpu"]


def draw(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_against_loops(form: str) -> None:
    x, y = draw(70, 5, 0) + 3, draw(70, 2, 1)
    x[7] = x[3]
    groups = torch.arange(70) // 9

    def check(op):
        sums = op(x, y, kernel_x=Distance(), kernel_y=RBF(1.3), groups=groups)
        for i in (0, 3, 69):
            for group in (0, 4, 7):
                there = [j for j in range(70) if groups[j] == group and j != i]
                k = torch.stack([-(x[i] - x[j]).square().sum().sqrt() for j in there])
                other = torch.stack([torch.exp(-(y[i] - y[j]).square().sum() / (2 * 1.3**2)) for j in there])
                expected = [(k * other).sum(), k.sum(), other.sum(), k.square().sum(), other.square().sum()]
                torch.testing.assert_close([each[i, group] for each in sums[:5]], expected, rtol=1e-12, atol=1e-12)

    FORMS[form].run(check)


@pytest.mark.parametrize("form", PLAIN)
def test_loops(form: str) -> None:
    check_against_loops(form)


def test_a_distance_without_its_root_is_noticed() -> None:
    with broken("distances_forget_their_root"), pytest.raises(AssertionError):
        check_against_loops("tiles")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_numbers_against_what_they_are_in_double(dtype: torch.dtype) -> None:
    x, other = draw(300, 16, 0).to(dtype), draw(200, 16, 1).to(dtype)
    found = hsic_sums(x, x, other, other, kernel_x=Distance(), kernel_y=Distance(), impl="blocked")
    x, other = x.double(), other.double()
    expected = hsic_sums(x, x, other, other, kernel_x=Distance(), kernel_y=Distance(), impl="reference")
    torch.testing.assert_close(found[:5], expected[:5], rtol=1e-5, atol=0.0)


def test_gradients_pass_rows_that_coincide() -> None:
    x = draw(6, 2, 0)
    x[4] = x[1]
    x.requires_grad_()
    hsic_sums(x, x, kernel_x=Distance()).product.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
