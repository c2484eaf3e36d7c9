"""Contrastive losses, class probabilities of distances, and moments of differences: against the matrix of all pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lamina_kernels.gram import RBF, Distance, Linear, Matern, difference_moments, harmonic, pairwise_loss
from lamina_kernels.gram.matrix import matrix
from lamina_kernels.gram.pairs import build
from tests.faults import broken
from tests.kernels import gram_dependence_faults, gram_faults  # noqa: F401
from tests.kernels.gram_kernels import normal, small_tiles

LABELS = torch.tensor([4, 4, 0, 9, 0, 7] * 5), torch.tensor([0, 4, 7, 7, 1] * 5)


def dense_loss(x: Tensor, y: Tensor, kind: str, t: Tensor, b: Tensor, labels: tuple[Tensor, Tensor] | None) -> Tensor:
    """The losses as anyone would write them."""
    logits = functional.normalize(x) @ functional.normalize(y).T / t + b
    together = torch.eye(len(x)).bool() if labels is None else labels[0][:, None] == labels[1]
    if kind == "sigmoid":
        return -functional.logsigmoid(torch.where(together, logits, -logits)).sum() / len(x)
    sides = []
    for scores, own in ((logits, together), (logits.T, together.T)):
        log_p = scores.log_softmax(1)
        has = own.any(1)
        sides.append(-((log_p * own).sum(1)[has] / own.sum(1)[has]).mean())
    return (sides[0] + sides[1]) / 2


def losses_are_those_of_the_matrix() -> None:
    for kind in ("sigmoid", "infonce"):
        for labels in (None, LABELS):
            x, y = (normal(n, 3, seed=n).requires_grad_() for n in (30, 25 if labels else 31))
            y = y if labels else y[:30]
            t, b = (torch.tensor(value).double().requires_grad_() for value in (0.3, -1.5))
            with small_tiles():
                found = pairwise_loss(x, y, kind=kind, temperature=t, bias=b, labels=labels)
                gradients = torch.autograd.grad(found, [x, y, t, b], materialize_grads=True)
            expected = dense_loss(x, y, kind, t, b, labels)
            truth = torch.autograd.grad(expected, [x, y, t, b])
            torch.testing.assert_close((found, gradients), (expected, truth), rtol=1e-10, atol=1e-12)


def test_losses_are_those_of_the_matrix() -> None:
    losses_are_those_of_the_matrix()


@pytest.mark.parametrize(
    "fault",
    ["sigmoid_forgets_who_belongs_together", "softplus_forgets_the_bias", "infonce_forgets_the_temperature"],
)
def test_a_fault_in_a_loss_is_noticed(fault: str) -> None:
    with broken(fault), pytest.raises(AssertionError):
        losses_are_those_of_the_matrix()


def test_a_pair_of_the_sigmoid_loss_pulls_as_if_it_were_alone() -> None:
    # With one-hot rows the gradient by x_ij is that of the pair (i, j) alone, but for the length of x_i.
    def pull(rows: Tensor) -> Tensor:
        rows = rows.requires_grad_()
        return torch.autograd.grad(len(rows) * pairwise_loss(rows, torch.eye(6).double(), temperature=0.5), rows)[0]

    x = torch.eye(6).double()
    other = x.clone()
    other[4] = functional.normalize(normal(1, 6, seed=0))[0]
    assert torch.equal(pull(x)[:4], pull(other)[:4])


def test_losses_do_not_overflow_and_short_numbers_are_what_they_are_in_double() -> None:
    x, y = (100 * normal(40, 8, seed=seed) for seed in (0, 1))
    for kind in ("sigmoid", "infonce"):
        expected = dense_loss(x, y, kind, torch.tensor(1e-3), torch.tensor(0.0), None)
        found = pairwise_loss(x.float(), y.float(), kind=kind, temperature=1e-3)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
        half, other = x.bfloat16(), y.bfloat16()
        expected = dense_loss(half.double(), other.double(), kind, torch.tensor(0.1), torch.tensor(0.0), None)
        torch.testing.assert_close(
            pairwise_loss(half, other, kind=kind, temperature=0.1).double(), expected, rtol=1e-5, atol=0
        )


def log_p(x: Tensor, w: Tensor, exponent: Tensor | float) -> Tensor:
    return (-exponent * (x[:, None] - w).norm(dim=2).log()).log_softmax(1)


def harmonic_is_the_softmax_of_logarithms() -> None:
    x, w, exponent = normal(37, 3, seed=0).requires_grad_(), normal(23, 3, seed=1).requires_grad_(), torch.tensor(2.7)
    exponent, targets = exponent.double().requires_grad_(), torch.arange(37) % 23
    with small_tiles():
        found = harmonic(x, w, targets, exponent=exponent)
        gradients = torch.autograd.grad(found.log_probability.square().sum(), [x, w, exponent])
    expected = log_p(x, w, exponent)[range(37), targets]
    truth = torch.autograd.grad(expected.square().sum(), [x, w, exponent])
    torch.testing.assert_close((found.log_probability, gradients), (expected, truth), rtol=1e-10, atol=1e-12)
    every = -exponent * (x[:, None] - w).norm(dim=2).log() - found.normalizer[:, None]
    torch.testing.assert_close(every, log_p(x, w, exponent), rtol=1e-10, atol=1e-12)
    scaled = harmonic(100 * x, 100 * w, targets, exponent=exponent).log_probability
    torch.testing.assert_close(scaled, found.log_probability, rtol=1e-10, atol=1e-12)


def test_harmonic_is_the_softmax_of_logarithms() -> None:
    harmonic_is_the_softmax_of_logarithms()


def test_an_exponent_without_a_gradient_is_noticed() -> None:
    with broken("harmonic_forgets_the_exponent"), pytest.raises(AssertionError):
        harmonic_is_the_softmax_of_logarithms()


def test_a_row_on_its_prototype_is_certain_and_has_finite_gradients() -> None:
    for dtype in (torch.float32, torch.float64):
        w = normal(5, 3, seed=2, dtype=dtype).requires_grad_()
        x = w.detach()[[2, 4]].clone().requires_grad_()
        found = harmonic(x, w, torch.tensor([2, 0]), exponent=8.0).log_probability
        assert found[0].abs() < 1e-6
        assert -1e4 < found[1] < -300
        assert all(g.isfinite().all() for g in torch.autograd.grad(found.sum(), [x, w]))


def test_the_weights_of_separable_classes_settle_near_their_centers() -> None:
    centers, targets = 3 * torch.eye(4, 6).double(), torch.arange(80) % 4
    x = centers[targets] + 0.1 * normal(80, 6, seed=3)
    w = normal(4, 6, seed=4).requires_grad_()
    optimizer = torch.optim.Adam([w], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-harmonic(x, w, targets, exponent=6**0.5).log_probability.mean()).backward()
        optimizer.step()
    means = torch.stack([x[targets == c].mean(0) for c in range(4)])
    assert (w - means).norm(dim=1).max() < 0.2


def test_a_broken_row_breaks_its_own_probability_and_every_loss() -> None:
    x, w = normal(9, seed=5), normal(4, seed=6)
    whole, targets = harmonic(x, w, torch.arange(9) % 4, exponent=2.0), torch.arange(9) % 4
    x[3, 2] = torch.nan
    for found, expected in zip(harmonic(x, w, targets, exponent=2.0), whole, strict=True):
        assert found.isnan().nonzero().tolist() == [[3]]
        torch.testing.assert_close(found[4:], expected[4:], rtol=1e-12, atol=0)
    for kind in ("sigmoid", "infonce"):
        assert pairwise_loss(x, x.flip(0), kind=kind, temperature=1.0).isnan()
    assert difference_moments(x, kernel=RBF(1.0)).isnan().all()


def second_derivatives_are_differences() -> None:
    x, y = (normal(3, 2, seed=seed).requires_grad_() for seed in (10, 11))
    t, b, targets = *(torch.tensor(value).double().requires_grad_() for value in (0.6, -0.5)), torch.tensor([2, 0, 0])

    def losses(x: Tensor, y: Tensor, t: Tensor, b: Tensor) -> Tensor:
        pairs = pairwise_loss(x, y, temperature=t, bias=b) + pairwise_loss(x, y, kind="infonce", temperature=t)
        return pairs + harmonic(x, y, targets, exponent=t).log_probability.sum()

    found = torch.autograd.gradgradcheck(losses, (x, y, t, b), raise_exception=False, fast_mode=True)
    assert found


def test_second_derivatives_are_differences() -> None:
    second_derivatives_are_differences()


def test_a_second_derivative_that_forgets_the_softmax_is_noticed() -> None:
    with broken("gram_second_forgets_the_softmax"), pytest.raises(AssertionError):
        second_derivatives_are_differences()


def test_one_row_and_one_column() -> None:
    x, y, one = (torch.tensor([[value]]).double() for value in (2.0, 5.0, 1.0))
    # The row is its own pair: log(1 + exp(-s)) of s = 1 / 0.5 - 3; among one there is no choice.
    loss = pairwise_loss(x, y, temperature=0.5, bias=-3.0)
    torch.testing.assert_close(loss, torch.tensor(math.log1p(math.e)).double())
    assert pairwise_loss(x, y, kind="infonce", temperature=0.5) == 0
    assert harmonic(x, y, torch.tensor([0]), exponent=3.0).log_probability == 0
    moments = difference_moments(x, y, kernel=Distance(), weights_x=one[0], weights_y=2 * one[0])
    assert torch.equal(moments, -54 * one)
    assert difference_moments(x, kernel=RBF(1.0)) == 0


def dense_moments(x: Tensor, y: Tensor, kernel: Any, u: Tensor, v: Tensor) -> Tensor:
    k = matrix(build("", x, y, kernel)) * u[:, None] * v
    differences = x[:, None] - y
    return torch.einsum("ij,ija,ijb->ab", k, differences, differences)


def moments_are_those_of_all_differences() -> None:
    b = torch.tensor([1.1, 0.7, 1.6, 1.3]).double().requires_grad_()
    x, y = (normal(n, seed=n).requires_grad_() for n in (37, 29))
    u, v = (normal(n, 1, seed=9)[:, 0].requires_grad_() for n in (37, 29))
    for kernel in (RBF(b), Linear(), Matern(b)):
        for others, weights in ((y, (u, v)), (None, (u, u.flip(0))), (None, (u, u))):
            right = x if others is None else others
            with small_tiles():
                found = difference_moments(x, others, kernel=kernel, weights_x=weights[0], weights_y=weights[1])
                gradients = torch.autograd.grad(found.square().sum(), [x, y, u, v, b], materialize_grads=True)
            expected = dense_moments(x, right, kernel, *weights)
            truth = torch.autograd.grad(expected.square().sum(), [x, y, u, v, b], materialize_grads=True)
            for one, other in zip((found, *gradients), (expected, *truth), strict=True):
                scale = 1 + other.detach().abs().max()
                torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-10)


def test_moments_are_those_of_all_differences() -> None:
    moments_are_those_of_all_differences()


def test_rows_with_the_weights_of_columns_are_noticed() -> None:
    with broken("differences_take_columns_for_rows"), pytest.raises((AssertionError, RuntimeError)):
        moments_are_those_of_all_differences()


def test_gaussians_have_their_moments_of_differences() -> None:
    # The difference of two draws is N(0, 2): E k d² with k = exp(-d² / 2b²) is (2 b² / (b² + 2)) E k, a dimension.
    n, b, d = 3000, 1.5, 2
    exact = (2 * b * b / (b * b + 2)) * (b * b / (b * b + 2)) ** (d / 2)
    x = normal(n, d, seed=20)
    found = difference_moments(1000 + x.float(), kernel=RBF(b)) / (n * (n - 1))
    torch.testing.assert_close(found.double(), exact * torch.eye(2).double(), rtol=0.03, atol=0.01)
    torch.testing.assert_close(found, found.T)


def test_pairs_of_a_group_do_not_count() -> None:
    x, ids = normal(12, 2, seed=21), torch.arange(12) // 4
    apart = (ids[:, None] != ids).double()
    differences = x[:, None] - x
    expected = torch.einsum("ij,ija,ijb->ab", -apart * differences.norm(dim=2), differences, differences)
    for impl in ("reference", "blocked"):
        found = difference_moments(x, kernel=Distance(), exclude=ids, impl=impl)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


X, Y = torch.ones(5, 3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise_loss(X, Y, temperature=1.0), "pairwise_loss: x has 5 rows and y has 4"),
        (lambda: pairwise_loss(X, X[:, :2], temperature=1.0), "x has width 3 and y has width 2"),
        (lambda: pairwise_loss(X[:0], X[:0], temperature=1.0), "x has 0 rows and y has 0"),
        (lambda: pairwise_loss(X, X, temperature=0.0), "temperature is 0.0"),
        (lambda: pairwise_loss(X, X, temperature=torch.tensor(math.nan)), "temperature is tensor"),
        (lambda: pairwise_loss(X, X, temperature=torch.ones((), device="meta")), r"temperature has shape \[\] on meta"),
        (
            lambda: pairwise_loss(X, X, temperature=1.0, bias=torch.ones(3)),
            r"bias has shape \[3\] on cpu",
        ),
        (
            lambda: harmonic(X, Y, torch.ones(5, device="meta").long(), exponent=1.0),
            "targets are torch.int64 .* on meta",
        ),
        (
            lambda: pairwise_loss(X, X, kind="softmax", temperature=1.0),  # pyright: ignore[reportArgumentType]
            "kind is 'softmax', expected 'sigmoid' or 'infonce'",
        ),
        (
            lambda: pairwise_loss(X, Y, temperature=1.0, labels=(torch.arange(5), torch.arange(5))),
            r"labels of y are torch.int64 \[5\] on cpu, expected integers \[4\]",
        ),
        (
            lambda: pairwise_loss(X, Y, kind="infonce", temperature=1.0, labels=(torch.arange(5), torch.arange(4) + 9)),
            "no two rows belong together",
        ),
        (lambda: harmonic(X, Y[:0], torch.zeros(5).long(), exponent=1.0), "targets are from 0 to 0, classes 0"),
        (
            lambda: harmonic(X, Y[:, :2], torch.zeros(5).long(), exponent=1.0),
            "x has width 3 and prototypes has width 2",
        ),
        (lambda: difference_moments(X.int(), kernel=RBF(1.0)), "x is torch.int32, expected float16"),
        (lambda: harmonic(X, Y, torch.arange(5), exponent=1.0), "targets are from 0 to 4, classes 4"),
        (lambda: harmonic(X, Y, torch.ones(5), exponent=1.0), "targets are torch.float32"),
        (lambda: harmonic(X, Y, torch.ones(5).long(), exponent=-1.0), "exponent is -1.0"),
        (
            lambda: difference_moments(X, kernel=RBF(1.0), weights_x=torch.ones(4)),
            r"weights_x is torch.float32 \[4\] on cpu, expected real numbers \[5\]",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
