"""Linear regression against numpy's least squares, fold by fold, and what it must not see."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lamina
from lamina import similarity
from lamina.errors import SchemaError
from lamina.rows.choosing import lots
from lamina.rows.groups import Groups, labels_of
from lamina.similarity import least_squares
from tests.faults import broken
from tests.measures.cases import normal
from tests.measures.coverage import predicted
from tests.measures.errors import compare_with_draws
from tests.meter import peak_bytes

GROUPS = np.repeat(np.arange(30), np.arange(30) % 5 + 3)
N = len(GROUPS)
X = normal(0, N, 6) + 2 * normal(1, 30, 6)[GROUPS]
Y = X[:, :3] @ normal(2, 3, 4) + normal(3, N, 4)


def folds_of(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    found = Groups.of(labels_of(groups))
    rank = np.argsort(np.argsort(lots(found, seed)))
    return (rank * folds // len(found))[found.codes]


def reference(x: torch.Tensor, y: torch.Tensor, groups: np.ndarray, folds: int = 5) -> tuple[float, float]:
    """R2 held out and in sample, from numpy's least squares with a column of ones."""
    a, b, of_rows = x.double().numpy(), y.double().numpy(), folds_of(groups, folds, 0)
    sums = np.zeros((2, 2))
    for fold in range(folds):
        train = of_rows != fold
        means = a[train].mean(0), b[train].mean(0)
        weights = np.linalg.lstsq(a[train] - means[0], b[train] - means[1], rcond=1e-10)[0]
        for at, rows in enumerate((~train, train)):
            around = b[rows] - means[1]
            sums[at] += ((around - (a[rows] - means[0]) @ weights) ** 2).sum(), (around**2).sum()
    held_out, in_sample = 1 - sums[:, 0] / sums[:, 1]
    return float(held_out), float(in_sample)


def check() -> None:
    for folds in (2, 5, 30):
        found = similarity.linear_regression(X, Y, groups=GROUPS, folds=folds)
        held_out, in_sample = reference(X, Y, GROUPS, folds)
        assert found.value == pytest.approx(held_out, abs=1e-10)
        assert found.parts["in_sample"] == pytest.approx(in_sample, abs=1e-10)
        assert (found.n, found.n_groups, found.options) == (N, 30, {"folds": folds})


def test_it_is_least_squares() -> None:
    check()


def test_pieces_that_divide_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least_squares, "rows_at_a_time", lambda aligned: 7)
    check()


def test_features_that_depend_on_each_other() -> None:
    wide = torch.cat([X, X @ normal(4, 6, 3), torch.ones(N, 1)], 1)  # three more say the same, and one says nothing
    found = similarity.linear_regression(wide, Y, groups=GROUPS)
    assert found.value == pytest.approx(similarity.linear_regression(X, Y, groups=GROUPS).value, abs=1e-9)
    more = normal(5, N, 900)  # more features than rows: the smallest map
    assert -0.6 < similarity.linear_regression(more, Y, groups=GROUPS).value < 0.1
    assert similarity.linear_regression(X, 2 * X - 3, groups=GROUPS).value == pytest.approx(1, abs=1e-12)


def test_single_precision_with_a_mean_of_a_thousand() -> None:
    x, y = (X + 1000).float(), (Y - 1000).float()
    found = similarity.linear_regression(x, y, groups=GROUPS)
    assert found.value == pytest.approx(reference(x.double() - 1000, y.double() + 1000, GROUPS)[0], abs=1e-6)


def check_documents() -> None:
    """Rows of a document that tell of the document, and of nothing else: held out, there is nothing to predict."""
    of_rows = np.repeat(np.arange(40), 10)
    held_out, by_row = [], []
    for seed in range(20):
        x, y = (normal(2 * seed + i, 40, 25)[of_rows] + 0.3 * normal(700 + 2 * seed + i, 400, 25) for i in range(2))
        held_out.append(similarity.linear_regression(x, y[:, :2], groups=of_rows).value)
        by_row.append(similarity.linear_regression(x, y[:, :2]).value)
    assert np.mean(held_out) < 0
    assert np.mean(by_row) > 0.2  # the document is known already


def test_documents_are_held_out_as_a_whole() -> None:
    check_documents()


def test_what_is_shuffled_scores_what_is_unrelated_scores() -> None:
    found = similarity.linear_regression(X, Y, groups=GROUPS)
    assert found.parts["shuffled"] < 0.1 < 0.4 < found.value
    shuffled = [similarity.linear_regression(normal(seed, 100, 20), X[:100]).parts["shuffled"] for seed in range(30)]
    unrelated = [similarity.linear_regression(normal(seed, 100, 20), X[:100]).value for seed in range(30)]
    assert np.mean(shuffled) == pytest.approx(np.mean(unrelated), abs=0.05)


def check_errors() -> None:
    """The interval covers the estimator's mean, with rows that depend on each other within groups."""
    compare_with_draws(similarity.linear_regression(**predicted(seed)) for seed in range(150))


def test_errors() -> None:
    check_errors()


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("regression_fits_what_it_scores", check),
        ("regression_fits_what_it_scores", check_documents),
        ("regression_deals_rows", check_documents),
        ("regression_deals_rows", check_errors),
        ("regression_forgets_the_intercept", check),
    ],
)
def test_faults_are_noticed(name: str, checked: Callable[[], None]) -> None:
    with broken(name), pytest.raises(AssertionError):
        checked()


def test_a_difference_has_the_paired_error() -> None:
    """Two layers that share most of their noise: the error of the difference is that of its draws."""
    differences, errors, apart = [], [], []
    for seed in range(60):
        x, shared = normal(seed, 200, 3), normal(4000 + seed, 200, 3)
        first = similarity.linear_regression(x, x + shared)
        second = similarity.linear_regression(x, x + shared + 0.2 * normal(8000 + seed, 200, 3))
        differences.append(first.value - second.value)
        errors.append((first - second).stderr)
        apart.append(math.hypot(first.stderr, second.stderr))
    assert 0.75 < np.mean(errors) / np.std(differences) < 1.35
    assert np.mean(apart) > 2 * np.mean(errors)


def test_stored_sites_pair_across_steps(tmp_path: Path) -> None:
    run = lamina.Run.create(tmp_path / "run")
    position = np.concatenate([np.arange(size) for size in np.bincount(GROUPS)])
    order = np.random.default_rng(0).permutation(N)
    with run.writer() as writer:
        writer.append({"x": X}, step=0, example=GROUPS, position=position)
        writer.append({"y": Y[order]}, step=1, example=GROUPS[order], position=position[order])
    run = run.refresh()
    found = similarity.linear_regression(run.rows("x", step=0), run.rows("y", step=1))
    assert found.value == pytest.approx(similarity.linear_regression(X, Y, groups=GROUPS).value, abs=1e-12)


SNIPPET = """
import torch
from lamina import similarity
from lamina.rows import Rows, centering
from lamina.similarity import least_squares
centering.BLOCK = 2**18  # smaller blocks, so that few rows are many of them
class Noise:
    # rows that are made when they are read
    def __init__(self, seed):
        import numpy as np
        self.seed, self.ids, self.shape, self.dtype = seed, np.arange({n}), ({n}, 256), torch.float32
        self.columns = ["row"]
    def gather(self, positions, out, threads):
        out.copy_(torch.sin(torch.as_tensor(positions)[:, None] * torch.arange(1, 257) * (0.37 + self.seed)))
assert similarity.linear_regression(Rows(Noise(0)), Rows(Noise(1)), folds=2).n == {n}
"""


def test_memory_does_not_hold_the_rows() -> None:
    small, large = (peak_bytes(SNIPPET.format(n=n)) for n in (8_000, 32_000))
    a_row = (large - small) / 24_000
    assert a_row < 1000, f"{a_row:.0f} bytes a row; the rows themselves are 2048"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"folds": 1}, "folds=1"),
        ({"folds": 31}, "in 30 groups for 31 folds"),
        ({"y": Y * 0 + 1}, "y does not vary"),
        ({"x": X[:, :0]}, "x has no features"),
        ({"x": [X[:50], X[50:]], "y": [Y[:50], Y[50:]], "groups": None}, "an iterable"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"x": X, "y": Y, "groups": GROUPS} | given
    with pytest.raises(SchemaError, match=message):
        similarity.linear_regression(**call)
