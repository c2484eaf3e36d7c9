"""CKA of many layers and its gradients on a GPU: the checks of tests/kernels, and what the interpreter cannot show."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, Distance, Linear, cka_matrix, distance_correlation, hsic
from tests.kernels import layers_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

TRITON = Form(cka_matrix, "triton", {}, "cuda")
_GRAM = "lamina_kernels.gram.dependence"
SETTINGS = pytest.mark.parametrize(
    "settings",
    [{f"{_GRAM}.backward_launch.PART": 1}, {f"{_GRAM}.launch.SIDE": 1, f"{_GRAM}.backward_launch.ROOMS": 1}],
    ids=["whole", "loop"],
)


@SETTINGS
@pytest.mark.parametrize("case", checks.CASES, ids=str)
def test_errs_at_most_twice_as_much_as_plain_torch(case: tuple[Any, ...], settings: dict[str, Any]) -> None:
    # Tensor cores cut digits off when they add: ten times is what the tests of PyTorch's FlexAttention allow float32.
    times = 10 if case[1] == torch.float32 else 2
    TRITON._replace(settings=settings).run(checks.errs_at_most_twice_as_much_as_plain_torch, *case, times)


@SETTINGS
@pytest.mark.parametrize("case", checks.GRADIENT_CASES, ids=str)
def test_gradients_err_at_most_three_times_as_much(case: tuple[Any, ...], settings: dict[str, Any]) -> None:
    times = 10 if case[1] == torch.float32 else 3
    TRITON._replace(settings=settings).run(checks.gradients_err_at_most_three_times_as_much, *case, times)


@pytest.mark.parametrize("case", checks.CASES[1:4], ids=str)
def test_bfloat16_errs_at_most_twice_as_much_as_plain_torch(case: tuple[Any, ...]) -> None:
    n, _, *rest = case
    TRITON.run(checks.errs_at_most_twice_as_much_as_plain_torch, n, torch.bfloat16, *rest)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test(check: Any) -> None:
    TRITON.run(check)


def test_the_default_is_triton_but_for_dot_products_large_groups_and_double(caplog: pytest.LogCaptureFixture) -> None:
    x = normal(300, 5, seed=1).cuda()
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        hsic(x, x, kernel_x=RBF(1.0), kernel_y=Linear())
        distance_correlation(x, x)
        hsic(x, x, kernel_x=Linear(), kernel_y=Linear())
        hsic(x, x, kernel_x=RBF(1.0), kernel_y=Distance(), groups=torch.arange(300).cuda() // 65)
        cka_matrix([x.double()], kernel=RBF(1.0))
    names = ["hsic: triton", "distance_correlation: triton", "hsic: blocked", "hsic: blocked", "cka_matrix: blocked"]
    assert caplog.messages == names


def test_memory_does_not_grow_with_the_pairs() -> None:
    # The matrices of 30,000 rows would take 14 GB.
    rows = [normal(30_000, 16, seed=seed).to(torch.bfloat16).cuda().requires_grad_() for seed in range(8)]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cka_matrix(rows, kernel=RBF(4.0), impl="triton").value[0].sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 512 * 2**20
