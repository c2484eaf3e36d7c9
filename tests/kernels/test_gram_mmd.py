from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, Distance, Matern, mmd
from lamina_kernels.gram.matrix import matrix
from lamina_kernels.gram.pairs import build
from tests.faults import broken
from tests.kernels import gram_faults  # noqa: F401
from tests.kernels.gram_kernels import normal


def test_the_estimate_is_the_mean_over_pairs() -> None:
    x, y = normal(13, seed=0), normal(9, seed=1) + 0.3
    groups = torch.arange(13) // 2, 100 + torch.arange(9) // 3
    kernel, ids = Matern(1.3), torch.cat(groups)
    k = matrix(build("", torch.cat([x, y]), None, kernel))
    for given, apart in ((None, ~torch.eye(22, dtype=torch.bool)), (groups, ids[:, None] != ids)):
        means = [k[a, b][apart[a, b]].mean() for a, b in ((slice(13),) * 2, (slice(13, 22),) * 2)]
        expected = means[0] + means[1] - 2 * k[:13, 13:].mean()
        for impl in ("reference", "blocked"):
            found = mmd(x, y, kernel=kernel, groups=given, impl=impl)
            torch.testing.assert_close(found.value, expected, rtol=1e-12, atol=1e-14)
            assert found.p_value.isnan()


def gaussians_have_their_discrepancy() -> None:
    # E k = (b² / (b² + 2))^(d/2), and between the samples times exp(-|shift|² / 2(b² + 2)).
    b, d, shift = 1.5, 3, 0.7
    exact = 2 * (b * b / (b * b + 2)) ** (d / 2) * (1 - torch.tensor(-shift * shift / (2 * (b * b + 2))).exp())
    scores = []
    for seed in range(0, 60, 2):
        x, y = normal(150, d, seed=seed), normal(250, d, seed=seed + 1)
        x[:, 0] += shift
        found = mmd(x, y, kernel=RBF(b))
        scores.append((found.value - exact) / found.variance.sqrt())
    z = torch.stack(scores)
    # Their mean is 0 within 3 standard errors, their variance 1 within 3 of its own.
    assert z.mean().abs() < 3 / 30**0.5
    assert (z.var() - 1).abs() < 3 * (2 / 29) ** 0.5


def test_gaussians_have_their_discrepancy() -> None:
    gaussians_have_their_discrepancy()


def test_a_fault_is_noticed() -> None:
    with broken("mmd_keeps_the_diagonal"), pytest.raises(AssertionError):
        gaussians_have_their_discrepancy()


def p_values(count: int, **options: Any) -> torch.Tensor:
    """Of samples that are alike, 12 documents of 4 rows that share most of what they are."""
    documents, found = torch.arange(48) // 4, []
    for seed in range(count):
        rows = normal(12, 2, seed=seed)[documents] + 0.3 * normal(48, 2, seed=1000 + seed)
        named: dict[str, Any] = dict.fromkeys(options, (documents[:24], documents[24:]))
        found.append(mmd(rows[:24], rows[24:], kernel=Distance(), permutations=39, seed=seed, **named).p_value)
    return torch.stack(found)


def test_the_test_keeps_its_level_where_groups_move_whole() -> None:
    # A twentieth of 120 tests, which is at most 12 with a probability of 0.99; copies of documents are no evidence.
    assert (p_values(120, groups=True) <= 0.05).sum() <= 12
    assert (p_values(40) <= 0.05).sum() > 10


def test_a_difference_is_seen() -> None:
    x, y = normal(40, seed=3), 1.6 * normal(50, seed=4)
    found = mmd(x, y, kernel=RBF(2.0), permutations=199)
    assert found.p_value == 1 / 200
    assert torch.equal(found.p_value, mmd(x, y, kernel=RBF(2.0), permutations=199).p_value)


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_a_broken_row_leaves_no_number(impl: Any) -> None:
    x, y = normal(9, seed=3), normal(8, seed=4)
    x[2, 1] = torch.nan
    assert all(each.isnan() for each in mmd(x, y, kernel=RBF(2.0), permutations=19, impl=impl))


@pytest.mark.parametrize("impl", ["reference", "blocked"])
def test_the_fewest_rows_and_columns(impl: Any) -> None:
    # Points 0, 1 and 3, 6: mean distances within are 1 and 3, between (3 + 6 + 2 + 5) / 4.
    x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [6.0]])
    assert mmd(x, y, kernel=Distance(), impl=impl).value == 2 * 4 - 1 - 3


def test_gradients_are_differences() -> None:
    x, y = (normal(n, 2, seed=n).requires_grad_() for n in (5, 4))
    b = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y, b: mmd(x, y, kernel=RBF(b)).value, (x, y, b))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": (torch.zeros(4).long(), torch.arange(3))}, "no pairs of rows of different groups"),
        ({"groups": (torch.arange(4), torch.arange(3)), "permutations": 9}, "a group stands in x and in y"),
        (
            {"groups": (torch.arange(3), torch.arange(3))},
            r"groups of x are torch.int64 \[3\] on cpu, expected integers \[4\] on cpu",
        ),
        ({"groups": (torch.arange(4), torch.arange(3).to("meta"))}, r"groups of y are torch.int64 \[3\] on meta"),
        ({"groups": (torch.arange(4.0), torch.arange(3))}, "groups of x are torch.float32"),
        ({"permutations": -1}, "permutations is -1"),
        ({"y": torch.ones(0, 2)}, "no pairs of rows of different groups, expected at least two groups a side"),
        ({"y": torch.ones(1, 2)}, "no pairs of rows of different groups"),
        ({"y": torch.ones(3, 1)}, "x has width 2 and y has width 1"),
        ({"y": torch.ones(3, 2).double()}, "y is torch.float64 on cpu, but x is torch.float32"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmd(torch.ones(4, 2), **{"y": torch.ones(3, 2), "kernel": RBF(1.0), **options})
