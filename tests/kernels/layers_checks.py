"""What holds for CKA of many layers by the Triton kernel, in the interpreter or on a GPU.

The truth is the form `reference` in float64, of the same rounded numbers. The error rule: at most twice the error of
plain torch in single precision, the form `blocked` (of gradients three times), or of matrices of kernel values in half
precision, and what rounding the result costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    CkaMatrix,
    Cosine,
    Distance,
    Kernel,
    Laplace,
    Linear,
    Matern,
    Pointwise,
    Polynomial,
    RationalQuadratic,
    cka_matrix,
    hsic,
)
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
    (70, torch.bfloat16, "each its own", "of many sizes", False),
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


# n, dtype, kernels, groups, biased
GRADIENT_CASES: list[tuple[Any, ...]] = [
    (70, torch.float32, "bandwidths", "none", False),
    (70, torch.float32, "trees", "of many sizes", False),
    (70, torch.float16, "bandwidths", "of one size", False),
    (66, torch.float16, "trees", "none", True),
    (66, torch.float32, "roots", "none", True),
    (66, torch.bfloat16, "trees", "of many sizes", False),
    (66, torch.bfloat16, "roots", "none", False),
]


def with_numbers(name: str, dtype: torch.dtype) -> tuple[list[Kernel], list[Tensor]]:
    """Kernels of all kinds of bases, and their hyperparameters, which have gradients."""
    b, c = (torch.tensor(value, dtype=dtype, requires_grad=True) for value in (5.0, 0.7))
    each = torch.linspace(4.0, 7.0, WIDTHS[1], dtype=dtype, requires_grad=True)
    kernels: dict[str, list[Kernel]] = {
        "bandwidths": [RBF(b), RBF(each), Linear()],
        "trees": [Linear() + Laplace(b, norm=1), RationalQuadratic(b, alpha=c) * Cosine(), Polynomial(2, coef0=c)],
        "roots": [Laplace(b), Distance(3), Matern(b, nu=1.5) + RBF(b)],
    }
    numbers = {"bandwidths": [b, each], "trees": [b, c], "roots": [b]}
    return kernels[name], numbers[name]


def gradients_of(cka: Cka, rows: Sequence[Tensor], name: str, **options: Any) -> list[Tensor]:
    """The gradients of a sum of all values of CKA by rows and hyperparameters."""
    held = [each.detach().requires_grad_() for each in rows]
    kernels, numbers = with_numbers(name, torch.float64 if rows[0].dtype == torch.float64 else torch.float32)
    value = cka(held, kernel=kernels[: len(rows)], **options).value
    loss = (value * normal(len(rows), len(rows), seed=9).double()).sum()
    with poisoned():
        return list(torch.autograd.grad(loss, held + numbers))


def gradients_err_at_most_three_times_as_much(
    cka: Cka, n: int, dtype: torch.dtype, name: str, groups: str, biased: bool, times: float = 3
) -> None:
    rows, options = layers(n, dtype), {"groups": groups_of(n, groups), "biased": biased}
    found = gradients_of(cka, rows, name, **options)
    forms = (partial(cka_matrix, impl="blocked"), torch.float32), (partial(cka_matrix, impl="reference"), torch.float64)
    plain, truth = (gradients_of(form, [each.to(kept) for each in rows], name, **options) for form, kept in forms)
    for value, other, exact in zip(found, plain, truth, strict=True):
        # Hyperparameters of rows in half precision are sums over rounded numbers.
        within(value.to(dtype), exact, other.to(dtype), times)


def gradients_are_the_same_bits_every_time(cka: Cka) -> None:
    rows = layers(70, torch.float32, 2)
    found, again = (gradients_of(cka, rows, "roots") for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def gradients_far_from_zero_keep_their_digits(cka: Cka) -> None:
    """Rows with the mean 1000 and kernel values that hardly vary: only their differences have gradients."""
    rows = [each + 1000 for each in layers(70, torch.float32, 2)]
    made = []
    for run, dtype in ((cka, torch.float32), (partial(cka_matrix, impl="reference"), torch.float64)):
        held = [each.to(dtype).requires_grad_() for each in rows]
        value = run(held, kernel=[RBF(100.0), Linear()]).value
        made.append(torch.autograd.grad(value[0, 1], held))
    for one, exact in zip(*made, strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=0, atol=5e-3 * exact.abs().max().item())


def torch_finds_the_operators_in_order(cka: Cka) -> None:
    """Schemas and fake tensors of both passes; and they compile without a break."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    from lamina_kernels.gram.dependence import layers as made
    from lamina_kernels.gram.dependence import op
    from lamina_kernels.gram.dependence.blocked import shapes

    x, y, _ = (each.requires_grad_() for each in layers(9, torch.float32))
    gathered = made.gather(
        "",
        {"x": x, "y": y},
        [RBF(1.0), Laplace(1.0)],
        left=1,
        own=True,
        groups=torch.arange(9) // 2,
        biased=False,
        precision=None,
    )
    arguments = op._flat(gathered)
    given = [normal(math.prod(shape), seed=5).double().view(shape) for shape in shapes(gathered)]
    tests = ("test_schema", "test_faketensor")
    with torch.no_grad():
        torch.library.opcheck(op._sums, (*arguments, "triton"), test_utils=tests)
        for wanted in ([True, True], [False, True]):
            others = (*given, wanted, [True, False], "triton")
            torch.library.opcheck(op._backward, (*arguments, normal(2, 9, seed=6), *others), test_utils=tests)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        both = [cka([x, y], kernel=RBF(3.0), groups=ids).value[0, 1] for ids in (None, torch.arange(9) // 2)]
        return both[0] + both[1]

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    torch.testing.assert_close(*(torch.autograd.grad(f(x, y), (x, y)) for f in (compiled, loss)))


def compiled_code_runs_what_groups_fit(cka: Cka) -> None:
    """It asks for "either" where groups are not known; what was asked for by name never gives way."""
    from lamina_kernels.gram.dependence import layers as made
    from lamina_kernels.gram.dependence import op

    x, y, _ = layers(100, torch.float32)
    for large, form in ((3, "triton"), (65, "blocked")):
        ids = (torch.arange(100) - large).clamp_min(-1) // 9
        options = {"groups": ids, "biased": False, "precision": None}
        gathered = made.gather("", {"x": x, "y": y}, [RBF(1.0), RBF(1.0)], left=1, own=False, **options)
        found, expected = (op._sums(*op._flat(gathered), name)[0] for name in ("either", form))
        assert torch.equal(found, expected)
        if form == "blocked":
            with pytest.raises(NotImplementedError, match="HSIC of rows in groups of more than 64"):
                op._sums(*op._flat(gathered), "triton")
        else:
            assert not torch.equal(found, op._sums(*op._flat(gathered), "blocked")[0])


def each_pass_is_one_launch(cka: Cka) -> None:
    """But of a function of a user's own, whose gradients are those of `blocked`."""
    from lamina_kernels.gram.dependence import backward_launch, launch

    launched: list[str] = []

    def counting(whole: Callable[..., None]) -> Callable[..., None]:
        return lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest))[1]

    rows = [each.requires_grad_() for each in layers(40, torch.float32)]
    with pytest.MonkeyPatch.context() as patch:
        for place in (launch, backward_launch):
            patch.setattr(place, "run", counting(place.run))
        torch.autograd.grad(cka(rows, kernel=KERNELS["distances"]).value[0, 1], rows)
        torch.autograd.grad(cka(rows[:1], kernel=TANIMOTO).hsic.sum(), rows[:1])
    assert launched == ["layers_kernel", "layers_gradients_kernel", "layers_kernel"]


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
    gradients_are_the_same_bits_every_time,
    gradients_far_from_zero_keep_their_digits,
    torch_finds_the_operators_in_order,
    compiled_code_runs_what_groups_fit,
    each_pass_is_one_launch,
    refusals,
]
