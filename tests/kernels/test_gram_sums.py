"""Sums over pairs of rows, of every kernel: tiles against the matrix, and the matrix against its formula."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.gram import RBF, Distance, Linear, SquaredDistance, logsumexp, product, row_sums, softmax_product
from lamina_kernels.gram.matrix import matrix
from lamina_kernels.gram.pairs import build
from tests.faults import broken
from tests.kernels import gram_faults  # noqa: F401
from tests.kernels.gram_checks import (
    gradients_far_from_zero_keep_their_digits,
    rows_without_a_squared_norm_give_no_wrong_numbers,
)
from tests.kernels.gram_checks import reductions as reductions_of_one
from tests.kernels.gram_kernels import CASES, WIDTH, leaves, normal, small_tiles

KERNELS = pytest.mark.parametrize("name", CASES)


@KERNELS
def test_the_matrix_is_that_of_the_formula(name: str) -> None:
    case, x, y = CASES[name], normal(7, seed=0), normal(5, seed=1)
    held = [h.detach() for h in leaves(case)]
    expected = torch.stack([torch.stack([case.value(a, b, *held) for b in y]) for a in x])
    torch.testing.assert_close(matrix(build("", x, y, case.make(*held))), expected, rtol=1e-12, atol=1e-12)
    numbers = [h.item() if h.ndim == 0 else h for h in held]
    torch.testing.assert_close(matrix(build("", x, y, case.make(*numbers))), expected, rtol=1e-12, atol=1e-12)


def rows(*, same: bool) -> tuple[Tensor, Tensor]:
    """Rows with duplicates, on both sides too, and two that are near each other."""
    x = normal(37, seed=2)
    x[5] = x[3]
    y = normal(29, seed=3)
    y[2], y[20], y[3] = x[7], y[19], x[8] + 2e-5 * torch.arange(1, WIDTH + 1)
    return (x.requires_grad_(), x if same else y.requires_grad_())


def reductions(x: Tensor, y: Tensor, v: Tensor, terms: Tensor, exclude: Any, options: dict[str, Any]) -> list[Tensor]:
    """Everything that the sums return."""
    mean = softmax_product(x, y, v, log_weights=terms, exclude=exclude, **options)
    return [
        product(x, y, v, exclude=exclude, **options),
        row_sums(x, y, exclude=exclude, **options),
        logsumexp(x, y, exclude=exclude, **options),
        *mean,
    ]


def first_and_second(name: str, impl: str, *, same: bool, exclude: Any) -> list[Tensor]:
    """Sums, their gradients, and gradients of these, by rows, columns, weights and hyperparameters."""
    case = CASES[name]
    held = leaves(case)
    x, y = rows(same=same)
    v, terms = normal(len(y), 3, seed=4).requires_grad_(), normal(len(y), 1, seed=5)[:, 0].requires_grad_()
    sums = reductions(x, y, v, terms, exclude, {"kernel": case.make(*held), "impl": impl})
    loss = torch.stack([(s * normal(s.numel(), 1, seed=9).view_as(s)).sum() for s in sums]).sum()
    by = [x, *([] if same else [y]), v, terms, *held]
    gradients = torch.autograd.grad(loss, by, create_graph=True)
    weighed = torch.stack([(g * normal(g.numel(), 1, seed=8).view_as(g)).sum() for g in gradients]).sum()
    return [*sums, *gradients, *torch.autograd.grad(weighed, by, materialize_grads=True)]


def tiles_are_the_matrix(name: str, *, same: bool = False, exclude: Any = None) -> None:
    with small_tiles():
        found = first_and_second(name, "blocked", same=same, exclude=exclude)
    expected = first_and_second(name, "reference", same=same, exclude=exclude)
    for a, b in zip(found, expected, strict=True):
        scale = 1 + b.detach().abs().max()
        torch.testing.assert_close(a / scale, b / scale, rtol=0, atol=1e-10)


@KERNELS
def test_tiles_are_the_matrix(name: str) -> None:
    tiles_are_the_matrix(name)


@KERNELS
def test_tiles_are_the_matrix_of_one_set_of_rows(name: str) -> None:
    tiles_are_the_matrix(name, same=True)


@pytest.mark.parametrize("name", ["rbf", "product"])
def test_pairs_are_left_out(name: str) -> None:
    tiles_are_the_matrix(name, same=True, exclude="self")
    tiles_are_the_matrix(name, exclude=(torch.arange(37) // 5, torch.arange(29) // 4))


def groups_of_one_side_are_not_those_of_the_other() -> None:
    """The rows are the same, but the matrix of the pairs that count is not symmetric."""
    tiles_are_the_matrix("rbf", same=True, exclude=(torch.arange(37) // 5, torch.arange(37) // 4))


def test_groups_of_one_side_are_not_those_of_the_other() -> None:
    groups_of_one_side_are_not_those_of_the_other()


def test_a_mirror_image_that_is_none_is_noticed() -> None:
    with broken("gram_takes_the_same_rows_for_symmetric"), pytest.raises(AssertionError):
        groups_of_one_side_are_not_those_of_the_other()


def test_pairs_of_a_group_do_not_count() -> None:
    x, ids = normal(9, seed=0), torch.tensor([4, 4, 4, 0, 0, 7, 7, 7, 7])
    apart = ids[:, None] != ids
    expected = torch.where(apart, -(x[:, None] - x).norm(dim=2), 0).sum(1)
    for impl in ("reference", "blocked"):
        torch.testing.assert_close(row_sums(x, kernel=Distance(), exclude=ids, impl=impl), expected)
    assert torch.equal(logsumexp(x[5:], kernel=Linear(), exclude=ids[5:]), torch.full((4,), -torch.inf).double())


@pytest.mark.parametrize(
    ("fault", "name", "same"),
    [
        ("gram_moves_one_side", "rbf", False),
        ("gram_takes_another_slope", "matern 3/2", False),
        ("gram_forgets_the_bandwidth", "laplace", False),
        ("gram_forgets_the_other_factor", "product", False),
        ("gram_forgets_the_norms", "own", False),
        ("gram_trusts_lost_digits", "laplace", False),
        ("gram_softmax_weighs_all_alike", "linear", False),
        ("gram_drops_the_last_columns", "cosine", False),
        ("gram_forgets_the_gradient_of_columns", "linear", True),
        ("gram_second_forgets_the_softmax", "squared distance", False),
    ],
)
def test_a_fault_is_noticed(fault: str, name: str, same: bool) -> None:
    with broken(fault), pytest.raises(AssertionError):
        tiles_are_the_matrix(name, same=same)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_gaussian_rows_have_the_mean_embedding_of_their_density(impl: Any) -> None:
    # E exp(-|x - y|² / 2b²) over y ~ N(0, 1) in d dimensions is (b² / (1 + b²))^(d/2) exp(-|x|² / 2(1 + b²)).
    n, d, b = 20_000, 3, 0.8
    x, y = normal(5, d, seed=10), normal(n, d, seed=11)
    expected = (b * b / (1 + b * b)) ** (d / 2) * torch.exp(-x.square().sum(1) / (2 * (1 + b * b)))
    second = (b * b / (2 + b * b)) ** (d / 2) * torch.exp(-x.square().sum(1) / (2 + b * b))
    found = row_sums(x, y, kernel=RBF(b), impl=impl) / n
    assert ((found - expected).abs() < 4 * ((second - expected**2) / n).sqrt()).all()


def test_arc_cosine_kernels_are_wide_random_networks() -> None:
    from lamina_kernels.gram import ArcCosine

    x, units = normal(6, seed=12), 200_000
    hidden = x @ normal(units, seed=13).T
    for order in (0, 1, 2):
        features = (hidden > 0) * hidden**order
        products = 2 * features[:, None] * features
        found, error = products.mean(2), products.std(2) / units**0.5
        exact = product(x, None, torch.eye(6, dtype=torch.float64), kernel=ArcCosine(order))
        assert ((found - exact).abs() < 4.5 * error).all()


def test_closed_forms_notice_a_fault() -> None:
    with broken("rbf_forgets_the_half"), pytest.raises(AssertionError):
        test_gaussian_rows_have_the_mean_embedding_of_their_density("blocked")
    with broken("arc_cosine_is_of_order_0"), pytest.raises(AssertionError):
        test_arc_cosine_kernels_are_wide_random_networks()


def test_a_softmax_of_large_values_does_not_overflow() -> None:
    x, y = 1000 * normal(40, 2, seed=14), normal(30, 2, seed=15)
    with small_tiles():
        found = softmax_product(x.float(), y.float(), y.float(), kernel=Linear())
    expected = (x @ y.T).softmax(1) @ y
    torch.testing.assert_close(found.value.double(), expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.logsumexp.double(), (x @ y.T).logsumexp(1), rtol=1e-6, atol=0)


blocked = partial(reductions_of_one, impl="blocked")


def far_rows_keep_their_digits() -> None:
    """Rows with the mean 1000, in single precision: distances are those of the rows as they were rounded."""
    x, y = (1000 + normal(70, seed=0)).float(), (1000 + normal(60, seed=1)).float()
    for kernel in (RBF(1.0), Distance(), RBF(torch.tensor([1.0, 0.7, 1.3, 2.0])), SquaredDistance(3.0)):
        found = row_sums(x, y, kernel=kernel)
        expected = row_sums(x.double(), y.double(), kernel=kernel, impl="reference")
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


def test_far_rows_keep_their_digits() -> None:
    far_rows_keep_their_digits()
    gradients_far_from_zero_keep_their_digits(blocked, torch.float32)
    rows_without_a_squared_norm_give_no_wrong_numbers(blocked)


def test_rows_that_are_not_moved_are_noticed() -> None:
    with broken("rbf_rows_are_not_moved"), pytest.raises(AssertionError):
        far_rows_keep_their_digits()
    with broken("rbf_rows_are_not_moved"), pytest.raises(AssertionError):
        gradients_far_from_zero_keep_their_digits(blocked, torch.float32)


def test_a_row_and_itself_are_exactly_0_apart_and_so_are_duplicates() -> None:
    x = (1e4 * normal(40, 50, seed=16)).float()
    x[9] = x[30]
    eye = torch.eye(40)
    k = product(x, None, eye, kernel=RBF(1e-3))
    assert torch.equal(k.diagonal(), torch.ones(40))
    distances = product(x, x.clone(), eye, kernel=Distance())
    assert torch.equal(distances.diagonal(), torch.zeros(40))
    assert distances[9, 30] == 0


@pytest.mark.parametrize("name", CASES)
def test_a_broken_row_breaks_its_own_result(name: str) -> None:
    case = CASES[name]
    kernel = case.make(*(h.detach() for h in leaves(case)))
    x, y = normal(40, seed=17), normal(33, seed=18)
    whole = row_sums(x, y, kernel=kernel)
    x[21, 1] = torch.nan
    with small_tiles():
        for found in (row_sums(x, y, kernel=kernel), logsumexp(x, y, kernel=kernel)):
            assert found.isnan().nonzero().tolist() == [[21]]
        found = row_sums(x, y, kernel=kernel)
    torch.testing.assert_close(found[:21], whole[:21], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 1), (1, 40, 3), (40, 1, 1), (0, 3, 2), (3, 0, 2), (17, 33, 70), (5, 7, 16_384)]
)
def test_shapes(n: int, m: int, d: int) -> None:
    x, y, v = normal(n, d, seed=19), normal(m, d, seed=20), normal(m, 2, seed=21)
    for kernel in (RBF(2.0 * d**0.5), Linear(), Distance(1)):
        with small_tiles():
            found = reductions(x, y, v, v[:, 0], None, {"kernel": kernel})
        expected = reductions(x, y, v, v[:, 0], None, {"kernel": kernel, "impl": "reference"})
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert m or torch.equal(found[0], torch.zeros(n, 2).double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_numbers_are_what_they_are_in_double(dtype: torch.dtype) -> None:
    # In half precision the squared norms would overflow.
    x, y, v = (50 * normal(90, 40, seed=22)).to(dtype), (50 * normal(70, 40, seed=23)).to(dtype), normal(70, 2, seed=24)
    for kernel in (RBF(300.0), SquaredDistance(300.0), Distance()):
        found = product(x, y, v.to(dtype), kernel=kernel)
        assert found.dtype == dtype
        expected = product(x.double(), y.double(), v.to(dtype).double(), kernel=kernel, impl="reference")
        torch.testing.assert_close(
            found, expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=2e-6 * expected.abs().max().item()
        )
