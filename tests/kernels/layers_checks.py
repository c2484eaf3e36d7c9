"""What holds for CKA of many layers by the Triton kernel, in the interpreter or on a GPU.

The truth is the form `reference` in float64, of the same rounded numbers. The error rule: at most twice the error of
plain torch in single precision, the form `blocked`, or of matrices of kernel values in half precision, and what
rounding the result costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import RBF, CkaMatrix, Cosine, Distance, Kernel, Laplace, Linear, Pointwise, cka_matrix, hsic
from tests.kernels import layers_faults as layers_faults  # known where checks run
from tests.kernels.gram_checks import within
from tests.kernels.hsic_checks import normal, poisoned
from tests.kernels.own_functions import TANIMOTO

Cka = Callable[..., CkaMatrix]

WIDTHS = (17, 5, 40)
KERNELS: dict[str, Sequence[Kernel]] = {
    "rbf": [RBF(5.0)] * 3,
    "each its own": [RBF(5.0), Linear() + Laplace(4.0, norm=1), TANIMOTO],
    "distances": [Laplace(4.0), Linear(), Laplace(9.0)],
}


def groups_of(n: int, name: str) -> Tensor | None:
    """Groups of rows that do not stand together."""
    place = torch.randperm(n, generator=torch.Generator().manual_seed(0), device="cpu").to(torch.get_default_device())
    return {"none": None, "of one size": place // 5, "of many sizes": (place.double() ** 1.5 / 9).long()}[name]


def layers(n: int, dtype: torch.dtype, count: int = 3) -> list[Tensor]:
    """Representations that have something in common."""
    common = normal(n, 5, seed=1)
    made = [normal(n, WIDTHS[place % 3], seed=2 + place) for place in range(count)]
    for rows in made:
        rows[:, :5] += common
    return [rows.to(dtype) for rows in made]


# n, dtype, kernels, groups, biased
CASES: list[tuple[Any, ...]] = [
    (70, torch.float32, "rbf", "none", False),
    (70, torch.float32, "each its own", "of many sizes", False),
    (70, torch.float16, "rbf", "of one size", False),
    (70, torch.float16, "each its own", "none", True),
    (65, torch.float32, "distances", "none", False),
    (70, torch.float16, "distances", "of many sizes", False),
]


def errs_at_most_twice_as_much_as_plain_torch(
    cka: Cka, n: int, dtype: torch.dtype, name: str, groups: str, biased: bool, times: float = 2
) -> None:
    from lamina_kernels.gram.dependence import reference

    rows, kernels = layers(n, dtype), KERNELS[name]
    options: dict[str, Any] = {"groups": groups_of(n, groups), "biased": biased}
    with poisoned():
        found, again = (cka(rows, kernel=kernels, **options) for _ in range(2))
    assert torch.equal(found.hsic, again.hsic)
    truth = cka_matrix([each.double() for each in rows], kernel=kernels, impl="reference", **options)
    whole = reference.matrix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "matrix", lambda p: whole(p).to(dtype).float())
        impl = "blocked" if dtype == torch.float32 else "reference"
        plain = cka_matrix(rows, kernel=kernels, impl=impl, **options)
    for one, other, exact in zip(found.hsic, plain.hsic, truth.hsic, strict=True):
        within(one.float(), exact, other.float(), times)


def many_layers_are_those_of_each_two(cka: Cka) -> None:
    """More than a product of layers takes at a time, among each other and with others."""
    rows = layers(20, torch.float32, 35)
    kernels = [RBF(4.0), Laplace(3.0)] * 18
    impl = cka.keywords["impl"]  # pyright: ignore[reportFunctionMemberAccess]
    whole = cka(rows, kernel=kernels[:35]).hsic
    for a, b in ((0, 34), (33, 2), (17, 16)):
        two = hsic(rows[a], rows[b], kernel_x=kernels[a], kernel_y=kernels[b], impl=impl)
        torch.testing.assert_close(whole[a, b], two, rtol=1e-5, atol=1e-9)
    apart = cka(rows[:2], rows[2:5], kernel=kernels[:5]).hsic
    torch.testing.assert_close(apart, whole[:2, 2:5], rtol=1e-5, atol=1e-9)


def a_large_mean_costs_no_digits(cka: Cka) -> None:
    """Kernel values that are nearly alike, and rows far from zero: what is taken away before they are multiplied."""
    rows = [each + 1000 for each in layers(70, torch.float32)]
    kernels = [RBF(300.0), Linear(), RBF(500.0)]
    exact = cka_matrix([each.double() for each in rows], kernel=kernels, impl="reference").value
    torch.testing.assert_close(cka(rows, kernel=kernels).value, exact, rtol=2e-3, atol=2e-3)


def nothing_beside_the_rows_is_touched(cka: Cka) -> None:
    rows, holes = layers(66, torch.float32), []
    for each in rows:
        field = torch.full((len(each) + 2, 2 * each.shape[1] + 3), math.nan)
        holes.append(field[1:-1, 1:-2:2].copy_(each))
    kernels = KERNELS["each its own"]
    assert torch.equal(cka(holes, kernel=kernels).hsic, cka(rows, kernel=kernels).hsic)
    # A row of one number has no column beside it.
    column = normal(1, 66, seed=9).T
    made = (cka([each], kernel=Cosine()).hsic for each in (column, column.contiguous()))
    torch.testing.assert_close(*made)


def a_broken_row_breaks_its_own_layer(cka: Cka) -> None:
    rows = layers(70, torch.float32)
    whole = cka(rows, kernel=RBF(5.0))
    rows[1][66, 2] = math.nan
    found = cka(rows, kernel=RBF(5.0))
    broken = torch.tensor([[False, True, False], [True, True, True], [False, True, False]])
    assert torch.equal(found.hsic.isnan(), broken)
    assert torch.equal(found.hsic[~broken], whole.hsic[~broken])


def four_rows_have_their_covariance(cka: Cka) -> None:
    """The fewest rows: of distances between 0, 1, 2 and 4."""
    x = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    torch.testing.assert_close(cka([x, 1 - x], kernel=Distance()).hsic, torch.full((2, 2), 2 / 3).double())


def one_row_alone_has_no_variance(cka: Cka) -> None:
    assert not cka([torch.ones(1, 3)] * 2, kernel=RBF(1.0), biased=True).hsic.any()


def gradients_are_those_of_tiles(cka: Cka) -> None:
    made = []
    for run in (cka, cka_matrix):
        x, y, _ = (each.requires_grad_() for each in layers(40, torch.float32))
        bandwidth = torch.tensor(4.0, requires_grad=True)
        value = run([x, y], kernel=RBF(bandwidth), groups=groups_of(40, "of one size")).value
        made.append(torch.autograd.grad(value[0, 1], [x, y, bandwidth]))
    for one, other in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


def it_is_one_launch(cka: Cka) -> None:
    from lamina_kernels.gram.dependence import launch

    launched: list[str] = []
    whole = launch.run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "run", lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest)))
        cka(layers(40, torch.float32), kernel=KERNELS["distances"])
    assert launched == ["layers_kernel"]


def refusals(cka: Cka) -> None:
    """What the kernel does not take is refused, never given to another form."""
    rows = layers(300, torch.float32)
    with pytest.raises(NotImplementedError, match="HSIC of rows in groups of more than 64 is not supported"):
        cka(rows, kernel=RBF(1.0), groups=torch.arange(300) // 65)
    with pytest.raises(NotImplementedError, match="a Pointwise kernel without a function is not supported"):
        cka(rows, kernel=[RBF(1.0), RBF(1.0), Pointwise(torch.addcmul)])
    with pytest.raises(ValueError, match="float64 has the forms"):
        cka([each.double() for each in rows], kernel=RBF(1.0))


CHECKS = [
    many_layers_are_those_of_each_two,
    a_large_mean_costs_no_digits,
    nothing_beside_the_rows_is_touched,
    a_broken_row_breaks_its_own_layer,
    four_rows_have_their_covariance,
    one_row_alone_has_no_variance,
    gradients_are_those_of_tiles,
    it_is_one_launch,
    refusals,
]
