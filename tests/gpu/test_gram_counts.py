"""Counts by distance on a GPU: the checks of tests/kernels, and operands that the interpreter cannot show."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lamina_kernels.gram import count, distance_histogram
from tests.kernels import counting_checks as checks
from tests.kernels.forms import Form
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

COUNT = Form(count, "triton", {}, "cuda")
BINS = COUNT._replace(op=distance_histogram)
SETTINGS = pytest.mark.parametrize(
    "settings", [{}, {"lamina_kernels.gram.counting.launch.PROGRAMS": 1}], ids=["whole", "loop"]
)


@SETTINGS
@pytest.mark.parametrize("check", checks.COUNTS, ids=lambda check: check.__name__)
def test_counts(check: Any, settings: dict[str, Any]) -> None:
    COUNT._replace(settings=settings).run(check)


@SETTINGS
@pytest.mark.parametrize("check", checks.HISTOGRAMS, ids=lambda check: check.__name__)
def test_histograms(check: Any, settings: dict[str, Any]) -> None:
    BINS._replace(settings=settings).run(check)


@pytest.mark.parametrize("shape", checks.SHAPES, ids=str)
def test_any_shape_counts_like_differences(shape: tuple[Any, ...]) -> None:
    COUNT.run(checks.counts_like_differences, *shape)


def test_the_kernel_is_launched_once_and_refuses_what_it_does_not_take() -> None:
    BINS.run(checks.it_is_one_launch)
    BINS.run(checks.refusals)


@pytest.mark.parametrize("precision", [None, "bf16x6", "bf16x3", "tf32", "ieee"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_precision_changes_the_counts(dtype: torch.dtype, precision: Any) -> None:
    x = normal(3000, 64, seed=0).to(dtype).cuda()
    found = count(x, None, 10.5, exclude="self", precision=precision, impl="triton")
    assert torch.equal(found, count(x.double(), None, 10.5, exclude="self", impl="blocked"))
    edges = torch.linspace(0, 20, 41)
    bins = distance_histogram(x, None, edges, exclude="self", precision=precision, impl="triton")
    assert torch.equal(bins, distance_histogram(x.double(), None, edges, exclude="self", impl="blocked"))


def test_the_default_is_triton_but_for_l1_and_double(caplog: pytest.LogCaptureFixture) -> None:
    x = normal(300, 5, seed=1).cuda()
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        count(x, None, 1.0)
        count(x, None, 1.0, distance="l1")
        distance_histogram(x.double(), None, [0, 1])
    assert caplog.messages == ["count: triton", "count: blocked", "distance_histogram: blocked"]
