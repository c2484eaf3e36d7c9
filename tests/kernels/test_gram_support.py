"""Which combinations run, and which are refused: the committed table, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import (
    RBF,
    Kernel,
    Pointwise,
    argmin,
    cka_matrix,
    count,
    distance_correlation,
    distance_covariance,
    distance_histogram,
    harmonic,
    hsic,
    nearest,
    pairwise_loss,
)
from lamina_kernels.gram.support import BY_L1, LARGE_GROUPS, NO_FUNCTION, OLD_TRITON, REFUSALS, THRICE
from tests.faults import broken
from tests.kernels import gram_faults  # noqa: F401
from tests.kernels.gram_checks import KERNELS
from tests.kernels.gram_kernels import normal
from tests.kernels.gram_reductions import REDUCTIONS, Rows, reduce

PAGE = Path(__file__).parents[2] / "docs" / "gram.md"
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# The reference refuses nothing that these do not.
TESTED = pytest.mark.parametrize("form", ["blocked", "triton"])
UNWRITTEN = "a function without Triton"
MEASURES = ["squared", "euclidean", "cosine", "dot", "l1"]

# What takes distances, or is a loss of its own, by name.
Call = Callable[..., object]
BY_DISTANCE: dict[str, Call] = {
    "nearest": lambda x, y, **options: nearest(x, y, 2, **options),
    "argmin": argmin,
    "count": lambda x, y, **options: count(x, y, 1.0, **options),
    "distance_histogram": lambda x, y, **options: distance_histogram(x, y, [0.0, 1.0], **options),
}
LOSSES: dict[str, Call] = {
    "sigmoid": lambda x, y, **options: pairwise_loss(x, y, temperature=0.5, **options),
    "infonce": lambda x, y, **options: pairwise_loss(x, y, kind="infonce", temperature=0.5, **options),
    "harmonic": lambda x, y, **options: harmonic(x, y, torch.arange(len(x)), exponent=2.0, **options),
}
BY_GROUPS: dict[str, Call] = {
    "hsic": lambda x, y, **options: hsic(x, y, kernel_x=RBF(1.0), kernel_y=RBF(2.0), **options),
    "cka_matrix": lambda x, y, **options: cka_matrix([x], [y], kernel=RBF(1.0), **options),
    "distance_covariance": distance_covariance,
    "distance_correlation": distance_correlation,
}


@pytest.fixture
def _everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the form `triton` run anywhere, as `blocked`: what is refused is decided before a kernel is launched."""
    from lamina_kernels.gram.counting import blocked as counting
    from lamina_kernels.gram.counting import launch as counts_launch
    from lamina_kernels.gram.dependence import blocked as dependence
    from lamina_kernels.gram.dependence import launch as layers_launch
    from lamina_kernels.gram.paired import blocked as paired
    from lamina_kernels.gram.paired import launch as paired_launch
    from lamina_kernels.gram.selection import blocked as selection
    from lamina_kernels.gram.selection import launch as nearest_launch
    from lamina_kernels.gram.sums import blocked, op, op_sides
    from lamina_kernels.gram.sums import launch as sums_launch

    whole, of = dispatch.triton_obstacle, op.form
    monkeypatch.setattr(dispatch, "triton_obstacle", lambda x: whole(x) if x.dtype == torch.float64 else None)
    for module in (op, op_sides):
        monkeypatch.setattr(module, "form", lambda name, p: of("blocked", p))
    monkeypatch.setattr(sums_launch, "sums", blocked.sums)
    monkeypatch.setattr(layers_launch, "sums", dependence.sums)
    monkeypatch.setattr(paired_launch, "hsic_sums", paired.hsic_sums)
    monkeypatch.setattr(nearest_launch, "nearest", selection.nearest)
    monkeypatch.setattr(counts_launch, "count", counting.count)
    monkeypatch.setattr(counts_launch, "histogram", counting.histogram)


def rows(dtype: torch.dtype, n: int = 6) -> tuple[Tensor, Tensor]:
    return normal(n, 3, seed=0).to(dtype), normal(n, 3, seed=1).to(dtype)


def outcome(call: Call, *arguments: Any, **options: Any) -> str:
    """Return how a call is refused, in the words of the table, or that it ran."""
    try:
        call(*arguments, **options)
    except NotImplementedError as error:
        (what,) = (refusal.what for refusal in REFUSALS if f"{refusal.what} is not supported" in str(error))
        return what
    except ValueError as error:
        return "float64" if "float64 has the forms 'reference' and 'blocked' alone" in str(error) else str(error)
    return "ran"


def wanted(form: str, dtype: torch.dtype, refusal: str | None = None) -> str:
    if form != "triton":
        return "ran"
    return "float64" if dtype == torch.float64 else refusal or "ran"


@pytest.mark.usefixtures("_everywhere")
@TESTED
def test_every_reduction_takes_every_kernel_in_every_dtype(form: Any) -> None:
    kernels: dict[str, Callable[[int], Kernel]] = KERNELS | {UNWRITTEN: lambda d: Pointwise(torch.addcmul)}
    for dtype in DTYPES:
        x, y = rows(dtype)
        given = Rows(x, y, y[:, :2], y[:, :2], y[:, 0])
        for reduction in REDUCTIONS:
            for name, kernel in kernels.items() if dtype == torch.float32 else [("rbf", KERNELS["rbf"])]:
                found = outcome(reduce, reduction, given, kernel(3), impl=form)
                refused = NO_FUNCTION.what if name == UNWRITTEN else None
                assert found == wanted(form, dtype, refused), f"{reduction}, {name}, {dtype}"


@pytest.mark.usefixtures("_everywhere")
@TESTED
def test_every_other_op_takes_every_dtype(form: Any) -> None:
    for dtype in DTYPES:
        x, y = rows(dtype)
        for name, call in BY_DISTANCE.items():
            for distance in MEASURES:
                expected = BY_L1.what if (form, distance) == ("triton", "l1") else wanted(form, dtype)
                assert outcome(call, x, y, distance=distance, impl=form) == expected, f"{name}, {distance}, {dtype}"
        for name, call in LOSSES.items():
            assert outcome(call, x, y, impl=form) == wanted(form, dtype), f"{name}, {dtype}"
        for name, call in BY_GROUPS.items():
            for size in (1, 64, 65) if dtype == torch.float32 else (1,):
                x, y = rows(dtype, 4 * size)
                found = outcome(call, x, y, groups=torch.arange(4 * size) // size, impl=form)
                refused = LARGE_GROUPS.what if size > 64 else None
                assert found == wanted(form, dtype, refused), f"{name}, groups of {size}, {dtype}"


@pytest.mark.usefixtures("_everywhere")
@pytest.mark.parametrize(("version", "refused"), [("3.6.0", True), ("3.7.1", False), ("3.10.0+rocm", False)])
def test_what_an_old_triton_does_not_compile_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    monkeypatch.setattr("triton.__version__", version)
    monkeypatch.setattr(dispatch, "interpreted", lambda: False)
    x, y = rows(torch.float32)
    found = outcome(hsic, x, y, kernel_x=RBF(1.0), kernel_y=RBF(1.0), impl="triton")
    assert found == (OLD_TRITON.what if refused else wanted("triton", torch.float32))


@pytest.mark.parametrize("form", ["reference", "blocked"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_derivatives_end_with_the_second_but_for_the_reference(reduction: str, form: Any) -> None:
    x, y = rows(torch.float64)
    x.requires_grad_()
    value = torch.cat([f.flatten() for f in reduce(reduction, Rows(x, y, y, y, y[:, 0]), RBF(1.0), impl=form)])
    (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    assert outcome(torch.autograd.grad, second.sum(), x) == ("ran" if form == "reference" else THRICE.what)


@pytest.mark.usefixtures("_everywhere")
def test_a_refusal_that_the_table_lacks_is_noticed() -> None:
    with broken("gram_refuses_sums_of_kernels"), pytest.raises(AssertionError):
        test_every_reduction_takes_every_kernel_in_every_dtype("triton")


def test_the_page_lists_every_refusal_with_its_reason() -> None:
    lines = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    listed = {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}
    for refusal in REFUSALS:
        assert listed[refusal.what] == (", ".join(refusal.forms), refusal.reason)
    assert len(REFUSALS) == 5, "a refusal is a promise that is not kept: think twice, then add it here and to the page"
