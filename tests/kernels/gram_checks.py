"""What holds for sums over pairs of rows by the Triton kernels, in the interpreter or on a GPU.

The truth is the form `reference` in float64, of the same rounded numbers. The error rule: at most twice the error of
plain torch in single precision, the form `blocked` (of gradients three times), and what rounding the result costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    ArcCosine,
    Cosine,
    Distance,
    InverseMultiquadric,
    Kernel,
    Laplace,
    Linear,
    Matern,
    Polynomial,
    RationalQuadratic,
    SquaredDistance,
    logsumexp,
    product,
    row_sums,
    softmax_product,
)
from lamina_kernels.gram.contrastive import Softplus
from lamina_kernels.gram.prototypes import LogDistance
from lamina_kernels.tiles.rounding import round_to_tf32
from tests.kernels import descriptor_faults as descriptor_faults  # known where checks run
from tests.kernels import gram_faults as gram_faults  # likewise
from tests.kernels import gram_kernel_faults as gram_kernel_faults  # likewise
from tests.kernels.covering import pairwise
from tests.kernels.hsic_checks import ids, normal, poisoned
from tests.kernels.own_functions import TANIMOTO

Reductions = Callable[..., list[Tensor]]


def reductions(
    x: Tensor,
    y: Tensor,
    v: Tensor,
    kernel: Kernel,
    *,
    which: str,
    impl: str,
    terms: Tensor | None = None,
    **options: Any,
) -> list[Tensor]:
    """What a reduction returns; `impl` is that of the form."""
    options |= {"kernel": kernel, "impl": impl}
    if which == "product":
        return [product(x, y, v, **options)]
    if which == "row_sums":
        return [row_sums(x, y, **options)]
    if which == "logsumexp":
        return [logsumexp(x, y, log_weights=terms, **options)]
    return list(softmax_product(x, y, v, log_weights=terms, **options))


def each(d: int, factor: float) -> Tensor:
    """A bandwidth a dimension."""
    return factor * d**0.5 * (1 + torch.arange(d) % 3 / 4)


# By the width of the rows: distances of normal rows are about (2 width)^1/2.
KERNELS: dict[str, Callable[[int], Kernel]] = {
    "linear": lambda d: Linear(),
    "polynomial": lambda d: Polynomial(3, coef0=torch.tensor(0.7)),
    "cosine": lambda d: Cosine(),
    "rbf": lambda d: RBF(torch.tensor(1.3 * d**0.5)),
    "rbf of each": lambda d: RBF(each(d, 1.0)),
    "squared distance": lambda d: SquaredDistance(0.9 * d**0.5),
    "laplace": lambda d: Laplace(1.4 * d**0.5),
    "laplace, norm 1": lambda d: Laplace(each(d, d**0.5), norm=1),
    "matern 3/2": lambda d: Matern(1.2 * d**0.5, nu=1.5),
    "matern 5/2": lambda d: Matern(1.5 * d**0.5, nu=2.5),
    "rational quadratic": lambda d: RationalQuadratic(1.2 * d**0.5, alpha=torch.tensor(0.8)),
    "inverse multiquadric": lambda d: InverseMultiquadric(1.4 * d**0.5),
    "distance": lambda d: Distance(),
    "distance, norm 3": lambda d: Distance(3),
    "chebyshev": lambda d: Distance(math.inf),
    "arc-cosine 0": lambda d: ArcCosine(0),
    "arc-cosine 1": lambda d: ArcCosine(1) * InverseMultiquadric(d**0.5),
    "arc-cosine 2": lambda d: ArcCosine(2) * RBF(d**0.5),
    "softplus": lambda d: Softplus(torch.tensor(d**-0.5), torch.tensor(0.3)),
    "logarithm": lambda d: LogDistance(torch.tensor(1.5)),
    "sum": lambda d: RBF(1.3 * d**0.5) + Laplace(2.0 * d**0.5) + SquaredDistance(d**0.5),
    "own": lambda d: TANIMOTO,
    "own in a tree": lambda d: TANIMOTO * RBF(torch.tensor(1.5 * d**0.5)) + Linear(),
    "product": lambda d: (Polynomial(2, gamma=0.5 / d) + Linear()) * Matern(d**0.5, nu=0.5),
}

FACTORS: dict[str, list[Any]] = {
    "kernel": list(KERNELS),
    "which": ["product", "logsumexp", "softmax"],
    "width": [1, 17, 100],
    "n": [1, 17, 127],
    "m": [1, 17, 129],
    "values": [1, 3, 70],
    "exclude": ["self", "groups", "same rows"],
    "dtype": [torch.float32, torch.float16],
}
CASES = pairwise(FACTORS)
# Log-sum-exps are among means under a softmax.
GRADIENT_CASES = pairwise(
    FACTORS
    | {
        "which": ["product", "softmax"],
        "width": [2, 17, 100],
        "values": [1, 20],
        "exclude": ["groups", "self"],
        "n": [1, 70],
        "m": [17, 129],
    }
)


def problem_of(case: dict[str, Any]) -> tuple[list[Tensor], dict[str, Any]]:
    """Make rows, values and log-weights, and the options of a case."""
    n, m, d = case["n"], case["m"], case["width"]
    x = normal(n, d, seed=1, dtype=case["dtype"])
    same = case["exclude"] in ("self", "same rows")
    y = x if same else normal(m, d, seed=2, dtype=case["dtype"])
    m = len(y)
    options: dict[str, Any] = {"which": case["which"]}
    if case["exclude"] == "self":
        options["exclude"] = "self"
    if case["exclude"] == "groups":
        options["exclude"] = (ids(n, 4, seed=3), ids(m, 4, seed=4))
    v = normal(m, case["values"], seed=5, dtype=case["dtype"])
    return [x, y, v, normal(m, seed=6)], options


def of_dtype(x: Tensor, y: Tensor, v: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The same rows as leaves in another dtype; y is x if it was."""
    made = x.detach().to(dtype, copy=True).requires_grad_()
    others = made if y is x else y.detach().to(dtype, copy=True).requires_grad_()
    return made, others, v.to(dtype, copy=True).requires_grad_()


def errs_at_most_twice_as_much_as_plain_torch(found: Reductions, case: dict[str, Any], times: float = 2) -> None:
    (x, y, v, terms), options = problem_of(case)
    kernel = KERNELS[case["kernel"]](case["width"])
    with poisoned(), torch.no_grad():
        got = found(x, y, v, kernel, terms=terms, **options)
    with torch.no_grad():
        exact = reductions(*of_dtype(x, y, v, torch.float64), kernel, terms=terms, impl="reference", **options)
        plain = reductions(*of_dtype(x, y, v, torch.float32), kernel, terms=terms, impl="blocked", **options)
    for value, truth, other in zip(got, exact, plain, strict=True):
        within(value, truth, other.to(value.dtype), times)


def gradients_err_at_most_three_times_as_much(found: Reductions, case: dict[str, Any], times: float = 3) -> None:
    (x, y, v, terms), options = problem_of(case)
    made = []
    for dtype, impl in ((x.dtype, None), (torch.float64, "reference"), (torch.float32, "blocked")):
        kernel = KERNELS[case["kernel"]](case["width"])
        numbers = [t.requires_grad_() for t in kernel.tensors()]
        rows, log_weights = of_dtype(x, y, v, dtype), terms.clone().requires_grad_()
        run = found if impl is None else partial(reductions, impl=impl)
        sums = run(*rows, kernel, terms=log_weights, **options)
        # Numbers that half precision holds: nothing is rounded on the way to the kernels.
        given = [normal(s.numel(), seed=7, dtype=torch.float16).view_as(s).to(s.dtype) for s in sums]
        held = [*dict.fromkeys(rows), log_weights, *numbers]
        with poisoned():
            made.append(torch.autograd.grad(sums, held, given, materialize_grads=True))
    for value, truth, other in zip(*made, strict=True):
        # Weights are rounded as rows are, and so are numbers that are sums over them.
        within(value.to(x.dtype), truth, other.to(x.dtype), times)


def within(value: Tensor, truth: Tensor, other: Tensor, times: float) -> None:
    """Assert the error rule; both have infinities in the same places."""
    assert value.shape == truth.shape
    finite = truth.isfinite()
    assert torch.equal(value[~finite].double(), truth[~finite])
    value, truth, other = value[finite], truth[finite], other[finite]
    if not truth.numel():
        return
    single = truth.to(value.dtype)
    atol = 2 * (single + 0.3 - 0.3 - single).abs().max().item()
    info = torch.finfo(value.dtype)
    atol += 2 * info.eps * max(truth.abs().max().item(), info.smallest_normal)
    error, allowed = (value - truth).abs().max().item(), (other.double() - truth).abs().max().item()
    assert error <= times * allowed + atol, f"error {error:.3g}, plain torch {allowed:.3g}, ulp {atol:.3g}"


def small_integers_are_exact(found: Reductions, precision: str | None, width: int = 24) -> None:
    # At most 3 bits each: nothing is rounded, in any precision. Rows have gaps between them, and one is broken.
    x, y, v = (normal(n, d + 64, seed=n).round().clamp(-4, 4)[:, :d] for n, d in ((70, width), (150, width), (150, 5)))
    x[0] = torch.nan
    (got,) = found(x, y, v, Linear(), which="product", precision=precision)
    assert got[0].isnan().all()
    assert torch.equal(got[1:], x[1:] @ y.T @ v)


def sums_of_tiles_are_as_good_as_one(found: Reductions) -> None:
    # A part of a tile less than 1 would vanish beside 2^24, if what rounding lost were lost.
    y = torch.zeros(1280, 1)
    y[0], y[256:] = 2.0**24, 1.0 / 128
    for values in (1, 3):
        (got,) = found(torch.ones(3, 1), y, torch.ones(1280, values), Linear(), which="product")
        assert got.flatten().tolist() == [2.0**24 + 8] * 3 * values


def far_rows_keep_their_digits(found: Reductions, dtype: torch.dtype) -> None:
    """Rows with the mean 1000: distances are those of the rows as they were rounded."""
    x, y = ((1000 + 4 * normal(n, 6, seed=n, dtype=torch.float64)).to(dtype) for n in (70, 60))
    for kernel in (RBF(6.0), Distance()):
        (got,) = found(x, y, y, kernel, which="row_sums")
        expected = row_sums(x.double(), y.double(), kernel=kernel, impl="reference")
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=0)


def gradients_far_from_zero_keep_their_digits(found: Reductions, dtype: torch.dtype) -> None:
    """Likewise their gradients, by the rows of both sides: those of distances, which do not know where zero is."""
    rows = [(1000 + 4 * normal(n, 6, seed=n, dtype=torch.float64)).to(dtype) for n in (70, 60)]
    for kernel in (RBF(6.0), Distance()):
        made = []
        forms: list[tuple[Reductions, torch.dtype]] = [(found, dtype)]
        for run, kept in [*forms, (partial(reductions, impl="reference"), torch.float64)]:
            held = [each.to(kept, copy=True).requires_grad_() for each in rows]
            (sums,) = run(*held, held[1].detach(), kernel, which="row_sums")
            made.append(torch.autograd.grad(sums.sum(), held))
        for one, exact in zip(*made, strict=True):
            rtol = max(1e-4, 2 * torch.finfo(dtype).eps)
            torch.testing.assert_close(one.double(), exact, rtol=0, atol=rtol * exact.abs().max().item())


def rows_without_a_squared_norm_give_no_wrong_numbers(found: Reductions) -> None:
    """Of numbers near 1e20 the squares overflow, of 1e-30 they vanish: sums are right, or not finite."""
    y = normal(60, 5, seed=22)
    for scale in (1e20, 1e-30):
        x = normal(70, 5, seed=21)
        x[61] *= scale
        kernels = [KERNELS[name](5) for name in ("linear", "cosine", "rbf", "distance", "matern 5/2", "sum", "own")]
        for kernel in (*kernels, ArcCosine(1)):
            for rows, others in ((x, y), (y, x)):
                (got,) = found(rows, others, others, kernel, which="row_sums")
                exact = row_sums(rows.double(), others.double(), kernel=kernel, impl="reference")
                right = (got - exact).abs() <= 1e-4 * exact.abs() + 1e-4
                assert (right | ~got.isfinite()).all(), kernel
                if rows is x:
                    assert right[torch.arange(70) != 61].all(), kernel


def float32_errs_as_its_precision_allows(found: Reductions, precision: str | None) -> None:
    """At most twice as much as a matrix of the same rounded rows does, whose values are rounded likewise."""
    x, y, v = normal(70, 24, seed=23), normal(129, 24, seed=24), normal(129, 20, seed=25)
    rounded = round_to_tf32 if precision == "tf32" else torch.clone
    # What tells kernels apart in float32, CASES shows.
    names = ["linear", "rbf", *(["own", "product", "sum", "rational quadratic"] if precision == "tf32" else [])]
    for kernel in (KERNELS[name](24) for name in names):
        (got,) = found(x, y, v, kernel, which="product", precision=precision)
        eye = torch.eye(129)
        k = product(rounded(x), rounded(y), eye, kernel=kernel, impl="blocked")
        exact = product(x.double(), y.double(), v.double(), kernel=kernel, impl="reference")
        within(got, exact, rounded(k) @ rounded(v), 2)


def rows_of_any_size_keep_their_digits(found: Reductions) -> None:
    """Float16 has no such exponents; a row that is broken, or nothing, changes no other."""
    x = normal(70, 24, seed=26) * 2.0 ** (torch.arange(70) % 41 * 3 - 60)[:, None]
    x[5], x[6, 3], x[7, 4] = 0, torch.nan, torch.inf
    whole = torch.ones(70).bool()
    whole[6:8] = False
    # All rows of y together are as small as float16 allows, or each by itself.
    for precision, smaller, digits in (("tf32", 2.0**-15, 2.0**-10), ("fp16x3", 2.0**-30, 2.0**-21)):
        for scale in (0.0, 2.0**-30, 1.0, 2.0**60):
            y = normal(33, 24, seed=27) * scale
            y[::2] *= smaller
            (got,) = found(x, y, torch.eye(33), Linear(), which="product", precision=precision)
            exact, sizes = x.double() @ y.double().T, x.double().abs() @ y.double().abs().T
            assert ((got - exact).abs() <= digits * sizes)[whole].all(), precision
            assert not got[~whole].isfinite().any()
    # Distances, however large they are.
    for scale in (2.0**-36, 2.0**36):
        x, y = normal(30, 24, seed=28) * scale, normal(33, 24, seed=29) * scale
        exact = product(x.double(), y.double(), torch.eye(33).double(), kernel=RBF(5.0 * scale), impl="reference")
        for precision, rtol in (("tf32", 2e-3), ("fp16x3", 2e-6)):
            (got,) = found(x, y, torch.eye(33), RBF(5.0 * scale), which="product", precision=precision)
            torch.testing.assert_close(got.double(), exact, rtol=rtol, atol=0)


def wide_rows_are_multiplied_as_float32(found: Reductions) -> None:
    """Products of rows that are long, small, far from zero, alike or mostly 0, beside torch's."""
    few, many = torch.Generator().manual_seed(33), 130
    x, y = normal(40, many, seed=34), normal(33, many, seed=35)
    sizes = 10 ** (6 * torch.rand(40, 1, generator=few))
    holes = torch.rand(40, many, generator=few) < 0.1
    for rows, others in ((x, y), (x * sizes, y), (x * holes, y), (x, x[:33] * (1 + 1e-5)), (1e-18 * x, 1e-15 * y)):
        exact = rows.double() @ others.double().T
        size = rows.double().norm(dim=1)[:, None] * others.double().norm(dim=1)
        for precision in (None, "fp16x3"):
            (got,) = found(rows, others, torch.eye(33), Linear(), which="product", precision=precision)
            error, plain = ((each.double() - exact).abs() / size for each in (got, rows @ others.T))
            assert error.max() <= 2 * plain.max() + 2.0**-24


def eleven_bits_of_wide_rows_leave_four_digits(found: Reductions) -> None:
    """Random signs add up to little, and so does what rounds rows; what rounds v to 11 bits is three times that."""
    x, y, v = normal(64, 256, seed=30), normal(1024, 256, seed=31), normal(1024, 16, seed=32)
    (got,) = found(x, y, v, RBF(16.0), which="product", precision="tf32")
    exact = product(x.double(), y.double(), v.double(), kernel=RBF(16.0), impl="reference")
    assert (got - exact).abs().max() <= 1e-4 * exact.abs().max()


def parts_of_numbers_are_multiplied_as_said(found: Reductions) -> None:
    """(a + b + c)² - a² = 2 a b + (2 a c + b²) + 2 b c + c²: of 3 products the first is left, of 6 also the brackets.

    The parts of a + b + c are a, b and c, each of a few digits.
    """
    a, b, c = 2.0**16, 3 * 2.0**6, 2.0**-4
    for width in (2, 100):
        x, y = torch.zeros(5, width), torch.zeros(3, width)
        # In another chunk each, of wide rows.
        x[:, 0], x[:, -1], y[:, 0], y[:, -1] = a + b + c, a, a + b + c, -a
        x, y = x * 2.0 ** torch.arange(5)[:, None], y * 2.0 ** -torch.arange(3)[:, None]
        scales = torch.outer(2.0 ** torch.arange(5), 2.0 ** -torch.arange(3))
        for precision, value in (("bf16x3", 2 * a * b), ("bf16x6", 2 * a * b + 2 * a * c + b * b)):
            (got,) = found(x, y, torch.eye(3), Linear(), which="product", precision=precision)
            assert torch.equal(got, value * scales), f"{precision} of {width}: {got[0, 0].item()}, expected {value}"
        # Parts of 11 digits: what is left of (1 + d)² - 1 is 2 d.
        d = 3 * 2.0**-14
        x[:, 0], x[:, -1], y[:, 0], y[:, -1] = 1 + d, 1, 1 + d, -1
        (got,) = found(x, y, torch.eye(3), Linear(), which="product", precision="fp16x3")
        assert torch.equal(got, torch.full((5, 3), 2 * d)), f"fp16x3 of {width}: {got[0, 0].item()}"


def near_rows_keep_their_digits(found: Reductions) -> None:
    """Roots of squared distances that are lost among the norms; and a row and itself, which are nothing apart."""
    x = 100 * normal(40, 20, seed=8)
    y = x.roll(1, 0) + 1e-3 * normal(40, 20, seed=9)
    y[3] = x[5]
    eye = torch.eye(40)
    (got,) = found(x, y, eye, Distance(), which="product")
    expected = product(x.double(), y.double(), eye.double(), kernel=Distance(), impl="reference")
    # As far off as the rounding of its 20 numbers moves a row.
    torch.testing.assert_close(got.double(), expected, rtol=3e-6, atol=2**-22 * x.abs().max().item())
    assert got[5, 3] == 0
    for kernel in (Distance(), Laplace(1e-2)):
        (got,) = found(x, x, eye, kernel, which="product")
        assert torch.equal(got.diagonal(), torch.full((40,), 0.0 if isinstance(kernel, Distance) else 1.0))
    x *= 1e4
    (got,) = found(x, x, eye, RBF(1e-3), which="product")
    assert torch.equal(got.diagonal(), torch.ones(40))


def a_broken_row_breaks_its_own_result(found: Reductions) -> None:
    x, y, v = normal(70, 5, seed=10), normal(20, 5, seed=11), normal(20, 2, seed=12)
    broken = x.clone()
    broken[61, 3] = torch.nan
    for name, kernel in KERNELS.items():
        for which in ("product", "softmax"):
            got, whole = (found(rows, y, v, kernel(5), which=which)[0] for rows in (broken, x))
            assert got.isnan().any(1).nonzero().tolist() == [[61]], name
            others = torch.arange(70) != 61
            torch.testing.assert_close(got[others], whole[others], rtol=1e-5, atol=1e-5)


def nothing_beside_the_rows_is_touched(found: Reductions) -> None:
    """Rows between NaN, in strides; results are the same."""
    x, y, v = normal(33, 19, seed=13), normal(45, 19, seed=14), normal(45, 3, seed=15)
    holes = []
    for rows in (x, y, v):
        field = torch.full((len(rows) + 2, 3 * rows.shape[1] + 5), torch.nan)
        hole = field[1:-1, 2 : 2 + 2 * rows.shape[1] : 2]
        hole.copy_(rows)
        holes.append(hole)
    for kernel in (RBF(3.0), Distance(1)):
        (got,), (expected,) = (found(*rows, kernel, which="product") for rows in (holes, (x, y, v)))
        assert torch.equal(got, expected)


def addresses_take_64_bits(found: Reductions) -> None:
    # The last of 40 rows starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    near = normal(40, 8, seed=16, dtype=torch.float16)
    far.copy_(near)
    v = normal(40, 2, seed=17, dtype=torch.float16)
    for rows, others in ((far, near), (near, far)):
        (got,), (expected,) = (found(*given, v, Linear(), which="product") for given in ((rows, others), (near, near)))
        assert torch.equal(got, expected)


def the_same_bits_every_time(found: Reductions) -> None:
    x, y, v = normal(130, 20, seed=18), normal(300, 20, seed=19), normal(300, 3, seed=20)
    x.requires_grad_()
    first, second = (
        [*(sums := found(x, y, v, KERNELS["sum"](20), which="softmax")), *torch.autograd.grad(sums[0].sum(), x)]
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@contextmanager
def launches() -> Iterator[list[str]]:
    """The names of the kernels of sums that are launched."""
    from lamina_kernels.gram.sums import backward_launch, launch

    launched: list[str] = []

    def counting(whole: Callable[..., None]) -> Callable[..., None]:
        return lambda kernel, *rest: (launched.append(kernel.fn.__name__), whole(kernel, *rest))[1]

    with pytest.MonkeyPatch.context() as patch:
        for room in (launch, backward_launch):
            patch.setattr(room, "run", counting(room.run))
        yield launched


def each_pass_is_one_launch(found: Reductions) -> None:
    x, y, v = (normal(n, d, seed=n).requires_grad_() for n, d in ((30, 4), (20, 4), (20, 3)))
    with launches() as launched:
        for which in ("product", "row_sums", "logsumexp"):
            found(x, y, v, RBF(2.0), which=which)
        mean, _ = found(x, y, v, RBF(2.0), which="softmax")
        torch.autograd.grad(mean.sum(), (x, y))
    forward = ["sums_kernel"] * 2 + ["softmax_kernel"] * 2
    assert launched == [*forward, "gradients_kernel", "gradients_kernel", "sums_kernel"]


# By what gradients are asked for, where y is not x: the launches that they take.
ASKED = {
    "x": ["gradients_kernel"],
    "y": ["gradients_kernel"],
    "b": ["parameters_kernel"],
    "v": ["sums_kernel"],
    "t": ["sums_kernel"],
    "xb": ["gradients_kernel"],
    "yb": ["gradients_kernel"],
    "xv": ["gradients_kernel", "sums_kernel"],
}


def a_weight_of_zero_has_its_gradient(found: Reductions) -> None:
    """d/dg sum (g <x, y> + 2)^q = q 2^(q - 1) sum <x, y> at g = 0, with gradients by rows and alone."""
    x, y = normal(20, 6, seed=1), normal(30, 6, seed=2)
    for degree, with_rows in ((1, True), (2, False), (3, True)):
        gamma = torch.zeros((), requires_grad=True)
        held = x.clone().requires_grad_(with_rows)
        (sums,) = found(held, y, y, Polynomial(degree, gamma=gamma, coef0=2.0), which="row_sums")
        (got, *of_rows) = torch.autograd.grad(sums.sum(), [gamma, held][: 1 + with_rows])
        expected = degree * 2 ** (degree - 1) * (x.double() @ y.double().T).sum()
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)
        assert all(not rows.any() for rows in of_rows)


def what_is_asked_for_alone_is_computed(found: Reductions) -> None:
    """And it is what all gradients are; of the same rows one walk makes those of both sides."""
    for which, same, width in (("product", True, 5), ("product", False, 70), ("softmax", False, 5)):
        rows = {"x": normal(20, width, seed=1), "y": normal(30, width, seed=2)}
        m = 20 if same else 30
        rows |= {"v": normal(m, 2, seed=3), "t": normal(m, seed=4), "b": torch.tensor(1.3 * width**0.5)}

        def gradients(asked: str, rows: Any = rows, same: Any = same, which: Any = which) -> dict[str, Tensor]:
            held = {name: value.clone().requires_grad_(name in asked) for name, value in rows.items()}
            x, y, v, t, b = held.values()
            options = {"exclude": "self"} if same else {}
            (sums, *_) = found(x, x if same else y, v, RBF(b) * Linear() + RBF(b), which=which, terms=t, **options)
            with launches() as launched:
                made = torch.autograd.grad(sums, [held[name] for name in asked], normal(len(x), 2, seed=5))
            if asked in ASKED:
                # A launch of rows for each base: of distances, and of products.
                times = {"gradients_kernel": 2}
                expected = [name for name in ASKED[asked] for _ in range(times.get(name, 1))]
                assert [name.removeprefix("wide_") for name in launched] == expected, (asked, which, same, launched)
            return dict(zip(asked, made, strict=True))

        names = [name for name in ASKED if not ((same and "y" in name) or (which == "product" and "t" in name))]
        every = gradients("".join(dict.fromkeys("".join(names))))
        for asked in names:
            for name, value in gradients(asked).items():
                torch.testing.assert_close(value, every[name], rtol=1e-5, atol=1e-5 * every[name].abs().max().item())


def torch_finds_the_operators_in_order(found: Reductions) -> None:
    """Schemas, fake tensors, gradients with static and dynamic shapes; and they compile without a break."""
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    from lamina_kernels.gram.pairs import build, flat
    from lamina_kernels.gram.sums import op

    x, y, v = (normal(n, d, seed=n).requires_grad_() for n, d in ((9, 3), (8, 3), (8, 2)))
    b = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    p = build("", x, y, RBF(b) + Laplace(torch.ones(3)))
    arguments = [a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in flat(p)]
    torch.library.opcheck(op._sums, (*arguments, v, "triton"))
    torch.library.opcheck(op._softmax, (*arguments, v, normal(8, seed=1).requires_grad_(), "triton"))

    def loss(x: Tensor, y: Tensor, b: Tensor) -> Tensor:
        mean, lse = found(x, y, y, RBF(b) * Linear(), which="softmax")
        return mean.sum() + lse.sum() + found(x, y, y, Matern(b), which="row_sums")[0].sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g)))
    held = (x, y, b)
    torch.testing.assert_close(*(torch.autograd.grad(f(*held), held) for f in (compiled, loss)))


CHECKS = [
    sums_of_tiles_are_as_good_as_one,
    rows_of_any_size_keep_their_digits,
    wide_rows_are_multiplied_as_float32,
    eleven_bits_of_wide_rows_leave_four_digits,
    parts_of_numbers_are_multiplied_as_said,
    near_rows_keep_their_digits,
    rows_without_a_squared_norm_give_no_wrong_numbers,
    a_broken_row_breaks_its_own_result,
    nothing_beside_the_rows_is_touched,
    addresses_take_64_bits,
    the_same_bits_every_time,
    each_pass_is_one_launch,
    a_weight_of_zero_has_its_gradient,
    what_is_asked_for_alone_is_computed,
    torch_finds_the_operators_in_order,
]
