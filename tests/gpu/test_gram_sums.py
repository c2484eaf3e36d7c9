"""Sums over pairs of rows on a GPU: the checks of tests/kernels, and what the interpreter cannot show."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, Linear, product
from tests.kernels import gram_checks as checks
from tests.kernels.forms import Form, never
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

TRITON = Form(checks.reductions, "triton", {}, "cuda")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
CASE = pytest.mark.parametrize("case", checks.CASES, ids=lambda case: " ".join(map(str, case.values())))


@CASE
@pytest.mark.parametrize("settings", [{}, {"lamina_kernels.gram.sums.launch.COLUMNS": 64}], ids=["whole", "split"])
def test_errs_at_most_twice_as_much_as_plain_torch(case: dict[str, Any], settings: dict[str, Any]) -> None:
    # Tensor cores cut digits off when they add: ten times is what the tests of PyTorch's FlexAttention allow float32.
    times = 10 if case["dtype"] == torch.float32 else 2
    TRITON._replace(settings=settings).run(checks.errs_at_most_twice_as_much_as_plain_torch, case, times)


@CASE
def test_bfloat16_errs_at_most_twice_as_much_as_plain_torch(case: dict[str, Any]) -> None:
    TRITON.run(checks.errs_at_most_twice_as_much_as_plain_torch, case | {"dtype": torch.bfloat16})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", checks.GRADIENT_CASES, ids=lambda case: " ".join(map(str, case.values())))
def test_gradients_err_at_most_three_times_as_much(case: dict[str, Any], dtype: torch.dtype) -> None:
    times = 10 if dtype == torch.float32 else 3
    TRITON.run(checks.gradients_err_at_most_three_times_as_much, case | {"dtype": dtype}, times)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    TRITON.run(check)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_far_rows_keep_their_digits(dtype: torch.dtype) -> None:
    TRITON.run(checks.far_rows_keep_their_digits, dtype)


@pytest.mark.parametrize("width", [24, 130])
@pytest.mark.parametrize("precision", [None, "bf16x6", "fp16x3", "bf16x3", "tf32", "ieee"])
def test_small_integers_are_exact(precision: str | None, width: int) -> None:
    TRITON.run(checks.small_integers_are_exact, precision, width)


@pytest.mark.parametrize("values", [1, 3, 16])
@pytest.mark.parametrize("width", [50, 64, 100, 128, 130, 200, 515])
def test_rows_loaded_by_descriptors_have_the_sums_of_those_loaded_by_addresses(
    width: int, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Products of whole numbers are exact in any order; what is made of them is the same code.
    x, y, v = (
        normal(n, d, seed=n).round().clamp(-4, 4).cuda().bfloat16()
        for n, d in ((300, width), (700, width), (700, values))
    )
    x[7] = torch.nan
    found = product(x, y, v, kernel=Linear(), impl="triton")
    monkeypatch.setattr("lamina_kernels.tiles.descriptors.takes_descriptors", never)
    expected = product(x, y, v, kernel=Linear(), impl="triton")
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isnan().any(1).nonzero().tolist() == [[7]]


def test_the_default_is_triton_but_for_a_shortcut_and_double(caplog: pytest.LogCaptureFixture) -> None:
    x = normal(300, 5, seed=0).cuda()
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        product(x, None, x, kernel=RBF(1.0))
        product(x, None, x, kernel=Linear())
        product(x.double(), None, x.double(), kernel=RBF(1.0))
    assert caplog.messages == ["product: triton", "product: blocked", "product: blocked"]


def test_memory_does_not_grow_with_the_pairs() -> None:
    # The matrix of 60,000 rows would take 7 GB.
    x = normal(60_000, 16, seed=1, dtype=torch.bfloat16).cuda().requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    product(x, None, x.detach(), kernel=RBF(4.0), impl="triton").sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 128 * 2**20
