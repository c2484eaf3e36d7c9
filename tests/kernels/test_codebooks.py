"""Codebooks: nearest codes against brute force, gradients by closed forms, moving averages, revival, quantisers."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse import (
    Codebook,
    Codes,
    code_statistics,
    finite_scalars,
    finite_scalars_of,
    nearest_scalars,
    quantize,
    residual_quantize,
)
from lamina_kernels.sparse.codebooks import learning, scalars
from lamina_kernels.sparse.codebooks import quantize as quantizing
from lamina_kernels.sparse.codebooks.through import through
from tests.faults import broken, fault
from tests.kernels.hsic_checks import normal


@fault
def codebooks_never_rotate(patch: pytest.MonkeyPatch) -> None:
    """The gradient goes straight through, whatever was asked for."""
    patch.setattr(quantizing, "through", lambda x, q, how: through(x, q, "straight"))


@fault
def codebooks_sum_the_nearest_alone(patch: pytest.MonkeyPatch) -> None:
    """Of k codes the first is taken."""
    whole = quantizing.decode
    patch.setattr(quantizing, "decode", lambda codes, book, **options: whole(first(codes), book, **options))


def first(codes: Codes) -> Codes:
    return Codes(codes.values[:, :1], codes.ids[:, :1], codes.width)


@fault
def codebooks_forget_what_was(patch: pytest.MonkeyPatch) -> None:
    """Every update is a step of k-means."""
    whole = learning.Codebook.updated
    patch.setattr(learning.Codebook, "updated", lambda self, x, decay: whole(self, x, decay=0.0))


@fault
def codebooks_take_broken_rows_for_the_first_code(patch: pytest.MonkeyPatch) -> None:
    """A row without a code is counted for the first one."""
    whole = learning.members
    counts = lambda places, codes: whole.counts(places.clamp(min=0), codes)  # noqa: E731
    patch.setattr(learning, "members", SimpleNamespace(counts=counts, sums=whole.sums))


@fault
def scalars_round_down(patch: pytest.MonkeyPatch) -> None:
    """The nearest scalar that is not larger is taken."""
    patch.setattr(scalars.torch, "searchsorted", lambda middles, x: (x[..., None] > 2 + middles[:, None]).sum(2))


def brute_force(x: Tensor, book: Tensor, k: int, distance: str) -> Tensor:
    """The k nearest codes by all distances, [n, k]."""
    if distance == "cosine":
        far = 1 - torch.nn.functional.cosine_similarity(x[:, None].double(), book[None].double(), dim=2)
    else:
        far = (x[:, None].double() - book[None].double()).square().sum(2)
    return far.sort(dim=1, stable=True).indices[:, :k]


@pytest.mark.parametrize("distance", ["squared", "euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 4])
def test_rows_become_the_sum_of_their_nearest_codes(distance: Any, k: int) -> None:
    x, book = normal(60, 9, seed=0), normal(20, 9, seed=1)
    found = quantize(x, book, k, distance=distance)
    at = brute_force(x, book, k, distance)
    assert torch.equal(found.codes.ids.long(), at)
    torch.testing.assert_close(found.output, book[at].sum(1))
    assert torch.equal(found.output, found.chosen)
    assert found.distances.shape == (60, k)


def test_a_missing_code_is_noticed() -> None:
    with broken("codebooks_sum_the_nearest_alone"), pytest.raises(AssertionError):
        test_rows_become_the_sum_of_their_nearest_codes("cosine", 4)


def test_the_gradient_goes_straight_through_to_rows_and_by_choice_to_codes() -> None:
    x, book = normal(30, 5, seed=2).requires_grad_(), normal(8, 5, seed=3).requires_grad_()
    found, g = quantize(x, book, 2), normal(30, 5, seed=4)
    of_x, of_book = torch.autograd.grad((found.output * g).sum(), (x, book), materialize_grads=True, allow_unused=True)
    assert torch.equal(of_x, g)
    assert not of_book.any()
    (of_book,) = torch.autograd.grad((found.chosen * g).sum(), book)
    expected = torch.zeros(8, 5).index_add(0, found.codes.ids.flatten().long(), g.repeat_interleave(2, 0))
    torch.testing.assert_close(of_book, expected)


def test_the_rotation_turns_rows_onto_their_codes_and_keeps_angles() -> None:
    x, book = normal(20, 6, seed=5).requires_grad_(), normal(7, 6, seed=6)
    found = quantize(x, book, gradient="rotation")
    jacobian = torch.stack(
        [torch.autograd.grad(found.output[:, j].sum(), x, retain_graph=True)[0] for j in range(6)], 1
    )
    torch.testing.assert_close((jacobian @ x.detach()[:, :, None])[..., 0], found.output.detach())
    scale = found.output.detach().norm(dim=1) / x.detach().norm(dim=1)
    expected = scale.square()[:, None, None] * torch.eye(6)
    torch.testing.assert_close(jacobian.mT @ jacobian, expected.expand(20, 6, 6), rtol=1e-4, atol=1e-4)
    assert (torch.linalg.det(jacobian) > 0).all()


def test_a_rotation_that_is_none_is_noticed() -> None:
    with broken("codebooks_never_rotate"), pytest.raises(AssertionError):
        test_the_rotation_turns_rows_onto_their_codes_and_keeps_angles()


def test_rows_without_a_rotation_hand_the_gradient_on() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]).requires_grad_()
    q = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-3.0, 0.0]])
    out, g = through(x, q, "rotation"), normal(3, 2, seed=7)
    assert torch.equal(out, q)
    assert torch.equal(torch.autograd.grad(out, x, g)[0], g)


def test_a_broken_row_becomes_nan_and_no_code_is_broken() -> None:
    x, book = normal(10, 3, seed=8), normal(6, 3, seed=9)
    whole = quantize(x, book, 2)
    x[4, 1] = torch.nan
    found = quantize(x, book, 2)
    others = torch.arange(10) != 4
    assert found.output[4].isnan().all()
    assert torch.equal(found.output[others], whole.output[others])
    assert code_statistics(found.codes).counts.sum() == 18
    book[3] = torch.inf
    assert not (quantize(x, book, 2).codes.ids[others] == 3).any()
    with pytest.raises(AssertionError):
        assert not (whole.codes.ids[others] == 3).any()


def test_zeros_and_no_rows() -> None:
    book = normal(6, 3, seed=10)
    assert quantize(torch.zeros(2, 3), book, distance="cosine").output.isfinite().all()
    assert quantize(torch.zeros(0, 3), book).output.shape == (0, 3)


def test_float64_and_half_precision_choose_alike() -> None:
    x, book = normal(40, 4, seed=11, dtype=torch.float16), normal(9, 4, seed=12, dtype=torch.float16)
    found = [quantize(x.to(dtype), book.to(dtype), 3) for dtype in (torch.float16, torch.float32, torch.float64)]
    assert all(torch.equal(each.codes.ids, found[0].codes.ids) for each in found)
    assert [each.output.dtype for each in found] == [torch.float16, torch.float32, torch.float64]


def test_moving_averages_by_hand() -> None:
    """Counts and sums after three steps, against their closed form."""
    decay, start = 0.75, torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 50.0]])
    book = Codebook.starting(start)
    steps = [
        torch.tensor([[1.0, 0.0], [11.0, 2.0], [9.0, 0.0]]),
        torch.tensor([[-1.0, 0.0]]),
        torch.tensor([[10.0, 4.0]]),
    ]
    for x in steps:
        book = book.updated(x, decay=decay)
    counts = torch.tensor([decay**3 + 0.25 * (decay**2 + decay), decay**3 + 0.25 * (2 * decay**2 + 1), decay**3])
    torch.testing.assert_close(book.counts, counts)
    sums = torch.stack(
        [
            0.25 * (decay**2 * steps[0][0] + decay * steps[1][0]),
            decay**3 * start[1] + 0.25 * (decay**2 * (steps[0][1] + steps[0][2]) + steps[2][0]),
            decay**3 * start[2],
        ]
    )
    torch.testing.assert_close(book.sums, sums)
    torch.testing.assert_close(book.codes, sums / counts[:, None])
    assert book.idle.tolist() == [1, 0, 3]


def test_a_forgotten_past_is_noticed() -> None:
    with broken("codebooks_forget_what_was"), pytest.raises(AssertionError):
        test_moving_averages_by_hand()


@pytest.mark.parametrize("distance", ["squared", "cosine"])
def test_codes_that_were_found_are_not_looked_for_again(distance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, book = normal(300, 6, seed=18), Codebook.starting(normal(20, 6, seed=19), distance=distance)
    x[7, 2] = torch.nan
    codes = quantize(x, book.codes, distance=distance).codes
    searched = book.updated(x, decay=0.5)
    monkeypatch.setattr(learning, "argmin", None)
    found = book.updated(x, codes, decay=0.5)
    for name in ("codes", "counts", "sums", "idle"):
        assert torch.equal(getattr(found, name), getattr(searched, name)), name


def test_a_broken_row_that_is_counted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with broken("codebooks_take_broken_rows_for_the_first_code"), pytest.raises(AssertionError):
        test_codes_that_were_found_are_not_looked_for_again("squared", monkeypatch)


def test_a_code_that_nobody_chooses_stays_for_ever() -> None:
    book = Codebook.starting(torch.tensor([[0.0], [7.0]]))
    for _ in range(300):
        book = book.updated(torch.zeros(3, 1), decay=0.5)
    assert book.codes.tolist() == [[0], [7]]
    assert book.updated(torch.tensor([[7.5]]), decay=0.5).codes[1].item() == pytest.approx(7.5)


def test_steps_of_k_means_find_planted_centers() -> None:
    centers = 20 * torch.eye(5)
    x = centers.repeat(40, 1) + 0.1 * normal(200, 5, seed=13)
    book = Codebook.starting(x[:5])
    for _ in range(3):
        book = book.updated(x, decay=0.0)
    expected = torch.stack([x[i::5].mean(0) for i in range(5)])
    torch.testing.assert_close(book.codes, expected)


def test_cosine_codes_are_directions() -> None:
    book = Codebook.starting(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), distance="cosine")
    book = book.updated(torch.tensor([[30.0, 10.0], [1.0, -1.0]]), decay=0.0)
    mean = torch.tensor([3.0, 1.0]) / 10**0.5 + torch.tensor([1.0, -1.0]) / 2**0.5
    torch.testing.assert_close(book.codes, torch.stack([mean / mean.norm(), torch.tensor([0.0, 1.0])]))
    assert book.codes.norm(dim=1).tolist() == pytest.approx([1, 1])


def test_the_dead_are_revived_by_rows_and_the_seed_decides_which() -> None:
    book = Codebook.starting(torch.cat([torch.zeros(1, 2), 100 + torch.arange(12.0).view(6, 2)]))
    x = normal(5, 2, seed=14)
    x[2] = torch.nan
    for _ in range(2):
        book = book.updated(x)
    assert torch.equal(book.revived(x, after=3, seed=0).codes, book.codes)
    one, same, other = (book.revived(x, after=2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.codes, same.codes)
    assert not torch.equal(one.codes, other.codes)
    # Four rows are finite: the first four of the dead become them, each once.
    rows = {tuple(row) for row in x[~x.isnan().any(1)].tolist()}
    assert {tuple(row) for row in one.codes[1:5].tolist()} == rows
    assert torch.equal(one.codes[5:], book.codes[5:])
    assert one.idle.tolist() == [0, 0, 0, 0, 0, 2, 2]
    torch.testing.assert_close(one.sums / one.counts[:, None], one.codes)


def test_statistics_of_codes() -> None:
    even = code_statistics(Codes(torch.ones(12, 1), (torch.arange(12) % 4)[:, None], 9))
    assert even.perplexity.item() == pytest.approx(4)
    assert even.used == 4
    none = code_statistics(Codes(torch.ones(0, 1), torch.zeros(0, 1).int(), 9))
    assert (none.perplexity.item(), none.used.item()) == (0, 0)


def test_stages_of_a_residual_quantiser_write_numbers_in_base_three() -> None:
    """Codebooks of -1, 0 and 1 times powers of 3: whole numbers are exact after four stages."""
    digits = torch.tensor([[-1.0], [0.0], [1.0]])
    codebooks = [digits * 3.0**place for place in (3, 2, 1, 0)]
    x = torch.arange(-40.0, 41.0)[:, None].requires_grad_()
    found = residual_quantize(x, codebooks)
    assert torch.equal(found.output, x)
    assert found.left[-1] == 0
    assert (found.left.diff() < 0).all()
    assert len({tuple(row) for row in found.indices.tolist()}) == 81
    assert torch.equal(torch.autograd.grad(found.output.sum(), x)[0], torch.ones(81, 1))
    by_hand = torch.stack([book[at] for book, at in zip(codebooks, found.indices.T, strict=True)]).sum(0)
    assert torch.equal(found.chosen, by_hand)


def test_nearest_scalars_by_brute_force() -> None:
    x, values = normal(50, 3, seed=15).requires_grad_(), normal(3, 6, seed=16).requires_grad_()
    found, g = nearest_scalars(x, values), normal(50, 3, seed=17)
    at = (x[:, :, None] - values).abs().argmin(2)
    assert torch.equal(found.indices, at)
    assert torch.equal(found.output, values.gather(1, at.T).T)
    assert torch.equal(torch.autograd.grad((found.output * g).sum(), x)[0], g)
    (of_values,) = torch.autograd.grad((found.chosen * g).sum(), values)
    torch.testing.assert_close(of_values, torch.zeros(3, 6).scatter_add(1, at.T, g.T))


def test_scalars_that_are_not_nearest_are_noticed() -> None:
    with broken("scalars_round_down"), pytest.raises(AssertionError):
        test_nearest_scalars_by_brute_force()


def test_a_tie_of_scalars_takes_the_smaller_and_nan_stays() -> None:
    found = nearest_scalars(torch.tensor([[1.0], [torch.nan], [torch.inf], [-9.0]]), torch.tensor([[2.0, 0.0, 5.0]]))
    assert found.indices[:, 0].tolist() == [1, -1, 2, 1]
    assert found.output[1].isnan()


@pytest.mark.parametrize("levels", [(3, 4, 5), (2, 2), (7,)])
def test_finite_scalars_reach_every_combination_once(levels: tuple[int, ...]) -> None:
    grid = torch.tensor(list(itertools.product(*[torch.linspace(-4, 4, 60).tolist()] * len(levels))))
    grid = grid[:: 7 if len(levels) > 1 else 1]
    found = finite_scalars(grid.requires_grad_(), levels)
    count = int(torch.tensor(levels).prod())
    assert found.indices.unique().tolist() == list(range(count))
    assert torch.equal(finite_scalars_of(found.indices, levels), found.output)
    assert found.output.detach().abs().amax() <= 1
    # The gradient is that of the squashed number.
    (slope,) = torch.autograd.grad(found.output.sum(), grid)
    assert (slope >= 0).all()
    assert slope.any()


def test_finite_scalars_of_what_is_broken() -> None:
    found = finite_scalars(torch.tensor([[torch.nan, 0.0], [0.0, torch.inf]]), (3, 3))
    assert found.indices.tolist() == [-1, 7]
    assert found.output[0].isnan().tolist() == [True, False]


X, BOOK = torch.ones(3, 2), torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantize(X, BOOK, 0), "quantize: k is 0, expected a whole number from 1 to 4"),
        (lambda: quantize(X, BOOK, 5), "quantize: k is 5"),
        (lambda: quantize(X, BOOK[:0]), "quantize: k is 1, expected a whole number from 1 to 0"),
        (lambda: quantize(X, torch.ones(4, 3)), "quantize: x has width 2 and codebook has width 3"),
        (lambda: quantize(X, BOOK.double()), "quantize: codebook is torch.float64"),
        (lambda: quantize(X, BOOK, distance="l1"), "quantize: distance is 'l1'"),  # pyright: ignore[reportArgumentType]
        (lambda: quantize(X, BOOK, gradient="none"), "gradient is 'none'"),  # pyright: ignore[reportArgumentType]
        (lambda: residual_quantize(X, []), "residual_quantize: no codebooks"),
        (lambda: Codebook.starting(BOOK).updated(X, decay=1.5), "Codebook: decay is 1.5"),
        (
            lambda: Codebook.starting(BOOK).updated(X, quantize(X, BOOK, 2).codes),
            r"Codebook: codes are \[3, 2\] of 4, expected \[3, 1\] of 4",
        ),
        (
            lambda: Codebook.starting(BOOK).updated(X, quantize(X, BOOK[:2]).codes),
            r"Codebook: codes are \[3, 1\] of 2, expected \[3, 1\] of 4",
        ),
        (lambda: Codebook.starting(BOOK).revived(X, after=0, seed=0), "Codebook: after is 0"),
        (lambda: nearest_scalars(X, torch.ones(3, 2)), r"scalars have shape \[3, 2\], expected \[2, V\]"),
        (lambda: nearest_scalars(X, torch.full((2, 2), torch.nan)), "a scalar is NaN"),
        (lambda: finite_scalars(X, (3, 1)), r"levels are \[3, 1\], expected 2 whole numbers from 2"),
        (lambda: finite_scalars(X, (2**40, 2**40)), "too many combinations"),
    ],
)
def test_bad_arguments_are_refused_by_name(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
