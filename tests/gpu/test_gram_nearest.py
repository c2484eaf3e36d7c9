"""The nearest rows and codes on a GPU: the checks of tests/kernels, and operands that the interpreter cannot show."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from lamina_kernels.gram import argmin, nearest
from tests.kernels import selection_checks as checks
from tests.kernels.forms import Form, never
from tests.kernels.hsic_checks import normal

pytestmark = pytest.mark.gpu

NEAREST = Form(nearest, "triton", {}, "cuda")
ARGMIN = NEAREST._replace(op=argmin)


@pytest.mark.parametrize("settings", [{}, {"lamina_kernels.gram.selection.launch.PROGRAMS": 1}], ids=["whole", "loop"])
@pytest.mark.parametrize("check", checks.TRUTHS, ids=lambda check: check.__name__)
def test(check: Any, settings: dict[str, Any]) -> None:
    NEAREST._replace(settings=settings).run(check)


@pytest.mark.parametrize("shape", [shape for shape in checks.SHAPES if "l1" not in shape], ids=str)
def test_any_shape_agrees_with_differences(shape: tuple[Any, ...]) -> None:
    NEAREST.run(checks.agrees_with_differences, *shape)


@pytest.mark.parametrize("check", [checks.codes_gather_their_rows, checks.the_first_of_equal_codes_is_taken])
def test_codes(check: Any) -> None:
    ARGMIN.run(check)


@pytest.mark.parametrize("precision", [None, "bf16x6", "bf16x3", "tf32", "ieee"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_no_precision_changes_the_neighbors(dtype: torch.dtype, precision: Any) -> None:
    x = normal(3000, 64, seed=0).to(dtype).cuda()
    found = nearest(x, None, 16, exclude="self", precision=precision, impl="triton")
    expected = nearest(x.double(), None, 16, exclude="self", impl="blocked")
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances.double(), expected.distances, rtol=1e-6, atol=0)


@pytest.mark.parametrize("width", [64, 100, 128, 130, 515])
@pytest.mark.parametrize("precision", [None, "tf32"])
def test_rows_loaded_by_descriptors_have_the_neighbors_of_those_loaded_by_addresses(
    width: int, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(2000, width, seed=3).to(torch.bfloat16 if precision is None else torch.float32).cuda()
    found = nearest(x, None, 16, exclude="self", precision=precision, impl="triton")
    monkeypatch.setattr("lamina_kernels.tiles.descriptors.takes_descriptors", never)
    expected = nearest(x, None, 16, exclude="self", precision=precision, impl="triton")
    assert all(torch.equal(a, b) for a, b in zip(found[:3], expected[:3], strict=True))


def test_the_default_is_triton_but_for_l1_and_double(caplog: pytest.LogCaptureFixture) -> None:
    x = normal(300, 5, seed=1).cuda()
    with caplog.at_level(logging.DEBUG, "lamina_kernels"):
        nearest(x, None, 2)
        nearest(x, None, 2, distance="l1")
        nearest(x.double(), None, 2)
    assert caplog.messages == ["nearest: triton", "nearest: blocked", "nearest: blocked"]


def test_memory_does_not_grow_with_the_pairs() -> None:
    # The matrix of 60,000 rows would take 14 GB.
    x = normal(60_000, 16, seed=2).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    nearest(x, None, 8, exclude="self", impl="triton")
    assert torch.cuda.max_memory_allocated() - before < 2**30
