"""HSIC, CKA and distance covariance: against their definition, closed forms, and independent rows."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import (
    RBF,
    Cosine,
    Distance,
    Kernel,
    Laplace,
    Linear,
    Polynomial,
    RationalQuadratic,
    cka_matrix,
    distance_correlation,
    distance_covariance,
    hsic,
)
from lamina_kernels.gram.dependence.blocked import whole_groups
from lamina_kernels.gram.matrix import matrix
from lamina_kernels.gram.pairs import build
from tests.faults import broken
from tests.kernels import gram_dependence_faults  # noqa: F401
from tests.kernels.gram_kernels import normal, small_layers
from tests.meter import peak_bytes

KERNELS: list[tuple[Kernel, Kernel]] = [
    (RBF(1.5), Laplace(2.0, norm=1)),
    (Linear(), Distance()),
    (Linear(), Linear()),
    (Cosine() + RBF(1.0) * Polynomial(2), Linear()),
]
GROUPS = {
    "none": None,
    "of one size": torch.arange(12) % 6,
    "of many sizes": torch.tensor([3, 1, 1, 7, 3, 3, 5, 0, 0, 0, 0, 7]),
}


def by_definition(k: Tensor, l: Tensor, ids: Tensor) -> float:  # noqa: E741
    """The average over all ordered quadruples of rows of distinct groups: n^4 steps."""
    total, count = 0.0, 0
    K, L, groups = k.tolist(), l.tolist(), ids.tolist()
    for i, j, m, q in permutations(range(len(K)), 4):
        if len({groups[i], groups[j], groups[m], groups[q]}) == 4:
            total += K[i][j] * (L[i][j] - 2 * L[i][m] + L[m][q])
            count += 1
    return total / count


def hsic_is_the_average_over_quadruples(groups: str, **options: Any) -> None:
    x, y, ids = normal(12, 3, seed=0), normal(12, 2, seed=1), GROUPS[groups]
    for kernel_x, kernel_y in KERNELS:
        k, l = matrix(build("", x, None, kernel_x)), matrix(build("", y, None, kernel_y))  # noqa: E741
        expected = by_definition(k, l, torch.arange(12) if ids is None else ids)
        with small_layers():
            found = hsic(x, y, kernel_x=kernel_x, kernel_y=kernel_y, groups=ids, **options)
        assert found.dtype == torch.float64
        assert found.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
@pytest.mark.parametrize("groups", GROUPS)
def test_hsic_is_the_average_over_quadruples(groups: str, impl: Any) -> None:
    hsic_is_the_average_over_quadruples(groups, impl=impl)


@pytest.mark.parametrize(
    ("fault", "groups"),
    [
        ("dependence_keeps_the_diagonal", "none"),
        ("dependence_keeps_pairs_of_a_group", "of one size"),
        ("dependence_has_no_mirror_image", "of many sizes"),
        ("dependence_weighs_pairs_alike", "of many sizes"),
        ("dependence_weighs_triples_alike", "of many sizes"),
        ("dependence_forgets_the_total", "none"),
    ],
)
def test_a_fault_in_the_sums_is_noticed(fault: str, groups: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        hsic_is_the_average_over_quadruples(groups)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_biased_hsic_is_the_trace_of_centered_matrices(impl: Any) -> None:
    x, y, h = normal(12, 3, seed=0), normal(12, 2, seed=1), torch.eye(12).double() - 1 / 12
    for kernel_x, kernel_y in KERNELS:
        k, l = matrix(build("", x, None, kernel_x)), matrix(build("", y, None, kernel_y))  # noqa: E741
        with small_layers():
            found = hsic(x, y, kernel_x=kernel_x, kernel_y=kernel_y, biased=True, impl=impl)
        torch.testing.assert_close(found, (k @ h @ l @ h).trace() / 144, rtol=1e-12, atol=1e-13)


def values_and_gradients(impl: Any, ids: Tensor | None, *, biased: bool, narrow: bool) -> list[Tensor]:
    """Of all that is differentiable: kernels of a few hyperparameters, and dot products of narrow and wide rows."""
    n, d = 31, 2 if narrow else 50
    x, y, z = (normal(n, d, seed=seed).requires_grad_() for seed in range(3))
    scale = (d / 2) ** 0.5
    bandwidths = 1.3 * scale, (scale * torch.linspace(0.8, 1.9, d)).tolist()
    b, c = (torch.tensor(value).double().requires_grad_() for value in bandwidths)
    options: dict[str, Any] = {"groups": ids, "biased": biased, "impl": impl}
    many = cka_matrix([x, y], [z], kernel=[RBF(b), Linear(), Laplace(c)], **options)
    all_ = cka_matrix([x, y, z], kernel=Linear(), **options)
    one = hsic(x, y, kernel_x=Linear(), kernel_y=Cosine(), **options)
    far = distance_covariance(x + y, z, **options)
    sums = [*many, *all_, one, far, hsic(x, z, kernel_x=RationalQuadratic(b, alpha=b), kernel_y=Distance(1), **options)]
    loss = torch.stack([(s * normal(s.numel(), 1, seed=9).view_as(s)).sum() for s in sums]).sum()
    return [*sums, *torch.autograd.grad(loss, [x, y, z, b, c])]


IDS = [None, torch.arange(31) // 3, (torch.arange(31) ** 2 // 40) % 11]


def forms_agree(ids: Tensor | None, *, biased: bool = False, narrow: bool = True, block: int = 7) -> None:
    expected = values_and_gradients("reference", ids, biased=biased, narrow=narrow)
    with small_layers(block):
        found = values_and_gradients("blocked", ids, biased=biased, narrow=narrow)
    for a, b in zip(found, expected, strict=True):
        scale = b.detach().abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ids", IDS, ids=["rows", "groups", "many sizes"])
@pytest.mark.parametrize("narrow", [True, False])
def test_tiles_and_features_are_the_matrix(ids: Tensor | None, *, narrow: bool) -> None:
    forms_agree(ids, narrow=narrow)


@pytest.mark.parametrize("narrow", [True, False])
def test_tiles_and_features_are_the_matrix_for_biased_estimates(*, narrow: bool) -> None:
    forms_agree(None, biased=True, narrow=narrow)


@pytest.mark.parametrize(
    ("fault", "ids", "narrow"),
    [
        ("dependence_gradient_forgets_row_sums", IDS[0], False),
        ("dependence_gradient_forgets_groups", IDS[1], True),
        ("dependence_gradient_has_no_mirror_image", IDS[0], False),
        ("features_forget_the_norms", IDS[0], True),
    ],
)
def test_a_fault_in_the_gradients_is_noticed(fault: str, ids: Tensor | None, *, narrow: bool) -> None:
    with broken(fault), pytest.raises(AssertionError):
        forms_agree(ids, narrow=narrow)


def test_block_sizes_and_the_order_of_rows_do_not_matter() -> None:
    x, y, ids = normal(200, 5, seed=3), normal(200, 4, seed=4), torch.randint(40, (200,), generator=torch.Generator())
    for kernel, groups in ((RBF(2.0), None), (Linear(), None), (RBF(2.0), ids)):
        whole = cka_matrix([x, x[:, :2] + y[:, :2], y], kernel=kernel, groups=groups).value
        order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
        turned = None if groups is None else groups[order]
        for block in (16, 77):
            with small_layers(block):
                found = cka_matrix([r[order] for r in (x, x[:, :2] + y[:, :2], y)], kernel=kernel, groups=turned)
            torch.testing.assert_close(found.value, whole, rtol=1e-12, atol=1e-12)


def cka_of_many_is_that_of_each_two() -> None:
    layers = [normal(40, d, seed=d) for d in (1, 3, 60)]
    layers[2][:, 0] += 2 * layers[1][:, 0]
    others = [normal(40, 2, seed=7), layers[1] + layers[0]]
    for kernel, groups, biased in (
        (RBF(6.0), None, False),
        (Linear(), torch.arange(40) // 4, False),
        (Linear(), None, True),
    ):
        options: dict[str, Any] = {"groups": groups, "biased": biased}
        with small_layers(16):
            square, crossed = (cka_matrix(layers, more, kernel=kernel, **options) for more in (None, others))

        def of(x: Tensor, y: Tensor, kernel: Kernel = kernel, options: dict[str, Any] = options) -> Tensor:
            return hsic(x, y, kernel_x=kernel, kernel_y=kernel, **options, impl="reference")

        for found, right in ((square, layers), (crossed, others)):
            expected = torch.stack([torch.stack([of(a, b) for b in right]) for a in layers])
            own, own_right = torch.stack([of(a, a) for a in layers]), torch.stack([of(b, b) for b in right])
            torch.testing.assert_close(found.hsic, expected, rtol=1e-10, atol=1e-14)
            torch.testing.assert_close((found.own, found.own_others), (own, own_right), rtol=1e-10, atol=1e-14)
            ratios = expected / (own[:, None] * own_right).sqrt()
            torch.testing.assert_close(found.value, ratios, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(square.value.diagonal(), torch.ones(3).double())


def test_cka_of_many_is_that_of_each_two() -> None:
    cka_of_many_is_that_of_each_two()


def test_a_layer_that_is_compared_with_another_is_noticed() -> None:
    with broken("dependence_mixes_layers"), pytest.raises(AssertionError):
        cka_of_many_is_that_of_each_two()


# Closed forms.


def drawn(rho: float, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x, other = normal(n, 1, seed=seed), normal(n, 1, seed=10_000 + seed)
    return x, rho * x + (1 - rho * rho) ** 0.5 * other


def hsic_of_gaussians(rho: float, b: float, c: float) -> float:
    """HSIC of two normal variables of variance 1 under RBF kernels of the bandwidths b and c."""

    def mean(f: float, g: float) -> float:  # of exp(-f x² / 2 - g y² / 2)
        return ((1 + f) * (1 + g) - rho * rho * f * g) ** -0.5

    alone = ((1 + 2 / b**2) * (1 + 2 / c**2)) ** -0.5
    # The difference of two draws has twice the covariance; the mean over the other draw leaves a wider Gaussian of x.
    together = ((1 + 2 / b**2) * (1 + 2 / c**2) - (2 * rho / (b * c)) ** 2) ** -0.5
    triples = ((1 + 1 / b**2) * (1 + 1 / c**2)) ** -0.5 * mean(1 / (1 + b**2), 1 / (1 + c**2))
    return together - 2 * triples + alone


def has_mean(draws: list[Tensor], expected: float) -> None:
    each = torch.stack(draws)
    assert abs(each.mean().item() - expected) < 3 * each.std().item() / len(each) ** 0.5


def gaussians_have_their_hsic() -> None:
    rho, b, c = 0.6, 2.0, 3.0
    pairs = [drawn(rho, 300, seed) for seed in range(40)]
    has_mean([hsic(x, y, kernel_x=RBF(b), kernel_y=RBF(c)) for x, y in pairs], hsic_of_gaussians(rho, b, c))
    has_mean([hsic(x, y, kernel_x=Linear(), kernel_y=Linear()) for x, y in pairs], rho * rho)


def test_gaussians_have_their_hsic() -> None:
    gaussians_have_their_hsic()


def test_another_bandwidth_is_noticed() -> None:
    with broken("rbf_forgets_the_half"), pytest.raises(AssertionError):
        gaussians_have_their_hsic()


def test_gaussians_have_their_distance_covariance_and_correlation() -> None:
    # Theorem 7 of Székely, Rizzo, Bakirov, Measuring and testing dependence by correlation of distances, 2007.
    def covariance(rho: float) -> float:
        terms = rho * math.asin(rho) + (1 - rho**2) ** 0.5 - rho * math.asin(rho / 2) - (4 - rho**2) ** 0.5 + 1
        return 4 / math.pi * terms

    rho = 0.7
    pairs = [drawn(rho, 300, seed) for seed in range(40)]
    has_mean([distance_covariance(x, y) for x, y in pairs], covariance(rho))
    has_mean([distance_covariance(x, x) for x, _ in pairs], covariance(1.0))
    x, y = drawn(rho, 3000, 99)
    exact = covariance(rho) / covariance(1.0)
    assert distance_correlation(x, y).item() == pytest.approx(exact, abs=0.03)
    assert distance_correlation(x, y, biased=True).item() > distance_correlation(x, y).item()
    # Invariant to scale, shift and rotation.
    turned = torch.linalg.qr(normal(2, 2, seed=0)).Q
    both = torch.cat([x, y], 1)
    torch.testing.assert_close(distance_correlation(7 * both @ turned - 3, y), distance_correlation(both, y))


@pytest.mark.parametrize(("n", "draws"), [(8, 150), (32, 100), (128, 60), (512, 25)])
def test_independent_rows_have_none(n: int, draws: int) -> None:
    rows = [(normal(n, 3, seed=seed), normal(n, 2, seed=5000 + seed)) for seed in range(draws)]
    has_mean([hsic(x, y, kernel_x=RBF(1.0), kernel_y=Linear()) for x, y in rows], 0.0)
    has_mean([distance_covariance(x, y) for x, y in rows], 0.0)


def independent_documents_have_none(*, pass_groups: bool = True) -> None:
    """6 documents of 1 to 9 rows that share most of what they are."""
    ids = torch.arange(6).repeat_interleave(torch.tensor([1, 9, 4, 4, 7, 2]))
    found: list[list[Tensor]] = [[], []]
    for seed in range(150):
        x, y = (normal(6, 3, seed=s)[ids] + 0.5 * normal(len(ids), 3, seed=9000 + s) for s in (seed, 4000 + seed))
        groups = ids if pass_groups else None
        found[0].append(hsic(x, y, kernel_x=RBF(2.0), kernel_y=RBF(2.0), groups=groups))
        found[1].append(distance_covariance(x, y, groups=groups))
    for draws in found:
        has_mean(draws, 0.0)


def test_independent_documents_have_none() -> None:
    independent_documents_have_none()


def test_documents_that_are_taken_for_rows_are_noticed() -> None:
    with pytest.raises(AssertionError):
        independent_documents_have_none(pass_groups=False)
    with broken("dependence_keeps_pairs_of_a_group"), pytest.raises(AssertionError):
        independent_documents_have_none()


@pytest.mark.parametrize(
    ("fault", "check", "arguments"),
    [
        ("dependence_squares_distances", test_gaussians_have_their_distance_covariance_and_correlation, ()),
        ("dependence_keeps_the_diagonal", test_independent_rows_have_none, (8, 150)),
        ("dependence_has_no_mirror_image", test_block_sizes_and_the_order_of_rows_do_not_matter, ()),
        ("dependence_has_no_mirror_image", test_biased_hsic_is_the_trace_of_centered_matrices, ("blocked",)),
    ],
)
def test_a_fault_is_noticed(fault: str, check: Any, arguments: tuple[Any, ...]) -> None:
    with broken(fault), pytest.raises(AssertionError):
        check(*arguments)


# Numbers.


def a_large_mean_costs_no_digits() -> None:
    """In single precision: rows with the mean 1000, and kernels whose values hardly vary."""
    x, y = (1000 + normal(300, 6, seed=40)).float(), (1000 + normal(300, 6, seed=41)).float()
    y[:, :3] = x[:, :3]
    for kernel, rtol in ((Linear(), 1e-5), (RBF(3.0), 1e-4), (RBF(60.0), 1e-2), (Distance(), 1e-4)):
        found = hsic(x, y, kernel_x=kernel, kernel_y=kernel)
        expected = hsic(x.double(), y.double(), kernel_x=kernel, kernel_y=kernel, impl="reference")
        torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


def test_a_large_mean_costs_no_digits() -> None:
    a_large_mean_costs_no_digits()


@pytest.mark.parametrize("fault", ["rbf_rows_are_not_moved", "dependence_centers_nothing"])
def test_values_that_are_not_centered_are_noticed(fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        a_large_mean_costs_no_digits()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_numbers_are_what_they_are_in_double(dtype: torch.dtype) -> None:
    x, y = normal(90, 9, seed=42).to(dtype), normal(90, 5, seed=43).to(dtype)
    for kernel in (Linear(), RBF(3.0)):
        found = cka_matrix([x, y], kernel=kernel)
        expected = cka_matrix([x.double(), y.double()], kernel=kernel, impl="reference")
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_broken_row_breaks_what_it_is_part_of_and_constant_rows_have_no_cka() -> None:
    x, y, broken_rows = normal(40, 3, seed=44), normal(40, 3, seed=45), normal(40, 3, seed=46)
    broken_rows[3, 1] = torch.nan
    found = cka_matrix([x, y, broken_rows], kernel=RBF(1.0)).value
    assert found[:2, :2].isfinite().all()
    assert found[2].isnan().all()
    assert distance_correlation(x, torch.ones(40, 2).double()).isnan()


def test_memory_is_flat() -> None:
    """A matrix of 5,000 rows is 100 MB; rows, results and gradients are 1."""
    setup = """
        import torch
        from lamina_kernels.gram import RBF, cka_matrix

        def both(n):
            x, y = (torch.randn(n, 8, requires_grad=True) for _ in range(2))
            cka_matrix([x, y], kernel=RBF(1.0)).value[0, 1].backward()

        both(1100)
    """
    assert peak_bytes(f"{setup}\n        both(5000)") - peak_bytes(setup) < 30e6


# The face.

X, Y = torch.ones(5, 3), torch.ones(5, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hsic(X, Y[:4], kernel_x=Linear(), kernel_y=Linear()), "hsic: x has 5 rows and y has 4"),
        (lambda: hsic(X[:3], Y[:3], kernel_x=RBF(1.0), kernel_y=RBF(1.0)), "3 rows in 3 groups, an unbiased estimate"),
        (
            lambda: hsic(X, Y, kernel_x=RBF(1.0), kernel_y=RBF(1.0), groups=torch.tensor([0, 1, 2, 2, 0])),
            "5 rows in 3 groups, an unbiased estimate needs at least four groups",
        ),
        (lambda: distance_covariance(X[:0], Y[:0], biased=True), "0 rows in 0 groups, a biased estimate needs"),
        (lambda: distance_covariance(X, Y, biased=True, groups=torch.arange(5)), "groups are given for a biased"),
        (lambda: distance_correlation(X, Y, groups=torch.arange(4)), r"groups of the rows have shape \[4\]"),
        (lambda: distance_correlation(X, Y.double()), "y is torch.float64 on cpu, but x is torch.float32"),
        (lambda: hsic(X, Y, kernel_x=RBF(torch.ones(2)), kernel_y=Linear()), r"bandwidth of RBF has shape \[2\]"),
        (lambda: cka_matrix([], kernel=Linear()), "no representation is given"),
        (lambda: cka_matrix([X], [], kernel=Linear()), "no representation is given"),
        (lambda: cka_matrix([X, Y], kernel=[Linear()]), "1 kernels are given for 2 representations"),
        (lambda: cka_matrix([X], [Y.long()], kernel=Linear()), r"others\[0\] is torch.int64"),
        (lambda: cka_matrix([X, Y[:3]], kernel=Linear()), r"layers\[0\] has 5 rows and layers\[1\] has 3"),
        (lambda: cka_matrix([X], kernel=Linear(), impl="dense"), "no form 'dense'"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def second_derivatives(impl: Any, ids: Tensor | None, *, biased: bool) -> list[Tensor]:
    """Of a kernel with a hyperparameter beside dot products, and of dot products of few features."""
    x, y = (normal(11, 2, seed=seed).requires_grad_() for seed in range(2))
    b = torch.tensor(1.3).double().requires_grad_()
    options: dict[str, Any] = {"groups": ids, "biased": biased, "impl": impl}
    value = cka_matrix([x, y], kernel=[RBF(b), Linear()], **options).value[0, 1]
    value = value + hsic(x, y, kernel_x=Linear(), kernel_y=Linear(), **options)
    gradients = torch.autograd.grad(value, [x, y, b], create_graph=True)
    weighed = torch.stack([(g * normal(g.numel(), 1, seed=8).view_as(g)).sum() for g in gradients]).sum()
    return list(torch.autograd.grad(weighed, [x, y, b]))


def second_derivatives_are_those_of_the_matrix(ids: Tensor | None, *, biased: bool = False) -> None:
    with small_layers(6):
        found = second_derivatives("blocked", ids, biased=biased)
    torch.testing.assert_close(found, second_derivatives("reference", ids, biased=biased), rtol=1e-9, atol=1e-10)


SECOND_IDS = [None, torch.arange(11) // 2, torch.tensor([0, 1, 1, 2, 2, 2, 3, 4, 4, 0, 5])]


@pytest.mark.parametrize("ids", SECOND_IDS, ids=["rows", "groups", "many sizes"])
def test_second_derivatives_are_those_of_the_matrix(ids: Tensor | None) -> None:
    second_derivatives_are_those_of_the_matrix(ids)


def test_second_derivatives_of_biased_estimates_are_those_of_the_matrix() -> None:
    second_derivatives_are_those_of_the_matrix(None, biased=True)


@pytest.mark.parametrize("fault", ["dependence_second_forgets_the_sums", "dependence_second_forgets_the_centers"])
def test_a_fault_in_the_second_derivatives_is_noticed(fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        second_derivatives_are_those_of_the_matrix(None)


def test_a_third_derivative_is_refused() -> None:
    x = normal(6, 2, seed=0).requires_grad_()
    value = hsic(x, normal(6, 2, seed=1), kernel_x=RBF(1.0), kernel_y=Distance())
    (first,) = torch.autograd.grad(value, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="a third derivative is not supported"):
        second.sum().backward()


def test_torch_finds_the_operator_in_order_and_compiles_it_whole() -> None:
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch._aot_autograd.utils import make_boxed_func

    from lamina_kernels.gram.dependence import layers, op

    x, y = normal(9, 2, seed=0), normal(9, 3, seed=1)
    for kernels, groups in (([RBF(1.0), Laplace(1.0)], torch.arange(9) // 2), ([Linear(), Linear()], None)):
        made = layers.gather(
            "", {"x": x, "y": y}, kernels, left=1, own=True, groups=groups, biased=False, precision=None
        )
        rows, parameters, *rest = op._flat(made)
        held = [[each.detach().requires_grad_() for each in some] for some in (rows, parameters)]
        torch.library.opcheck(op._sums, (*held, *rest, "blocked"), test_utils=("test_schema", "test_faketensor"))

    def loss(x: Tensor, y: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        grouped = [
            hsic(x, y, kernel_x=RBF(b), kernel_y=Linear(), groups=ids),
            cka_matrix([x, y], kernel=RBF(b), groups=ids).value[0, 1],
            distance_correlation(x, y, groups=ids, impl="reference"),
        ]
        return cka_matrix([x, y], kernel=RBF(b)).value[0, 1] + distance_covariance(x, y) + torch.stack(grouped).sum()

    torch._dynamo.reset()
    compiled: Any = torch.compile(
        loss, fullgraph=True, backend=aot_autograd(fw_compiler=lambda g, _: make_boxed_func(g))
    )
    leaves = [x.requires_grad_(), y.requires_grad_(), torch.tensor(1.2).double().requires_grad_()]
    both: list[Any] = [compiled, loss]
    # One graph for groups of any sizes, in any order.
    for ids in (torch.tensor([7, 7, -2, 3, 3, 3, 0, -2, 9]), torch.arange(9).flip(0), torch.arange(9) % 4):
        found, expected = (torch.autograd.grad(f(*leaves, ids), leaves) for f in both)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert compiled(*leaves, torch.arange(9) % 3).isnan()


def test_groups_of_sizes_that_nobody_knows_take_a_tile_of_whole_groups() -> None:
    sizes = [3, 3, 70, 1, 2, 0, 0]
    spans = [(rows.start, rows.stop, groups.start, groups.stop) for rows, groups in whole_groups(sizes, 64)]
    assert spans == [(0, 6, 0, 2), (6, 76, 2, 3), (76, 79, 3, 5)]
