"""NC1 to NC4 against the definition in float64, and what they must not see."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from lamina import geometry
from lamina.errors import SchemaError
from lamina.rows import Rows
from tests.faults import broken
from tests.measures.cases import normal
from tests.measures.errors import compare_with_draws

room = import_module("lamina.geometry.neural_collapse")

CLASSES = np.array([0, 1, 2, 1, 0, 2, 2] * 20)
GROUPS = np.repeat(np.arange(20), 7)
X = 2 * torch.eye(5).double()[torch.from_numpy(CLASSES)] + normal(0, 140, 5)
V, B = normal(1, 3, 5), normal(2, 3)


def reference(x: torch.Tensor, classes: np.ndarray, v: torch.Tensor | None, b: torch.Tensor | None) -> list[float]:
    """The definition, with a pseudo-inverse."""
    rows, count = x.double().numpy(), classes.max() + 1
    means = np.stack([rows[classes == c].mean(0) for c in range(count)])
    within = np.cov((rows - means[classes]).T, bias=True)
    middle = means - means.mean(0)
    between = middle.T @ middle / count
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-10)) / count
    norms = np.linalg.norm(middle, axis=1)
    angles = [
        abs(middle[i] @ middle[j] / norms[i] / norms[j] + 1 / (count - 1)) for i in range(count) for j in range(i)
    ]
    found = [nc1, norms.std() / norms.mean(), np.mean(angles)]
    nearest = np.argmin(((rows[:, None] - means) ** 2).sum(2), 1)
    if v is None or b is None:
        return [*found, float(np.mean(nearest != classes))]
    weights = v.numpy()
    found.append(np.linalg.norm(weights / np.linalg.norm(weights) - middle / np.linalg.norm(middle)))
    return [*found, float(np.mean(nearest != (rows @ weights.T + b.numpy()).argmax(1)))]


def check(x: torch.Tensor = X, tolerance: float = 1e-10) -> None:
    for v, b in ((None, None), (V, B)):
        found = geometry.neural_collapse(x, CLASSES, weights=v, bias=b, groups=GROUPS)
        np.testing.assert_allclose(found.value, reference(x, CLASSES, v, b), rtol=tolerance, atol=tolerance)
        assert found.replicates is not None
        for group in (0, 13):
            kept = group != GROUPS
            left = reference(x[torch.from_numpy(kept)], CLASSES[kept], v, b)
            np.testing.assert_allclose(found.replicates.values[group][:-1], left[:-1], rtol=tolerance, atol=tolerance)


def test_it_is_the_definition() -> None:
    check()


def test_single_precision_with_a_mean_of_a_thousand() -> None:
    check((X + 1000).float(), tolerance=1e-4)


def test_buckets_that_do_not_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = geometry.neural_collapse(X, CLASSES, weights=V, bias=B, groups=GROUPS)
    monkeypatch.setattr(room, "BUDGET", 3 * 8 * 25)
    monkeypatch.setattr(room, "rows_at_a_time", lambda aligned: 11)
    parts = geometry.neural_collapse(X, CLASSES, weights=V, bias=B, groups=GROUPS)
    np.testing.assert_allclose(parts.value, whole.value, rtol=1e-12)
    np.testing.assert_allclose(parts.stderr, whole.stderr, rtol=1e-9)


def test_a_simplex_has_collapsed() -> None:
    corners = torch.eye(4, 6).double()[torch.arange(80) % 4] + 3
    x = corners + 1e-4 * normal(5, 80, 6)
    found = geometry.neural_collapse(x, np.arange(80) % 4, weights=torch.eye(4, 6) - 0.25 * torch.eye(4, 6).sum(0))
    assert found.axes["metric"] == ("nc1", "nc2_norm", "nc2_angle", "nc3", "nc4")
    assert (np.asarray(found.value) < 1e-3).all()
    assert found.at(metric="nc4").value == 0


def check_errors() -> None:
    """The claimed errors are those of draws, with rows that depend on each other within groups."""
    of_rows, classes = np.repeat(np.arange(24), 12), np.arange(288) % 3
    corners = torch.tensor([[3.0, 0, 0, 0], [0, 4, 0, 0], [0, 0, 2, 0]]).double()[torch.from_numpy(classes)]
    draws = (corners + normal(seed, 288, 4) + normal(900 + seed, 24, 4)[of_rows] for seed in range(60))
    estimates = (geometry.neural_collapse(x, classes, groups=of_rows) for x in draws)
    compare_with_draws(estimates, ratio=(0.7, 1.45), covered=(0.85, 1))


def test_errors() -> None:
    check_errors()


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("collapse_takes_rows_for_independent", check_errors),
        ("collapse_forgets_the_number_of_classes", check),
        ("collapse_keeps_the_means_in_replicates", check),
    ],
)
def test_faults_are_noticed(name: str, checked: Callable[[], None]) -> None:
    with broken(name), pytest.raises(AssertionError):
        checked()


def test_a_class_in_one_group_has_no_error() -> None:
    found = geometry.neural_collapse(X, np.where(GROUPS == 3, 3, CLASSES), groups=GROUPS)
    assert np.isnan(found.stderr).any()
    assert np.isfinite(found.value).all()


def test_labels_of_texts_and_columns() -> None:
    names = np.array(["cat", "dog", "eel"])[CLASSES]
    rows = Rows.of(X, {"animal": names, "example": GROUPS})
    assert geometry.neural_collapse(rows, "animal") == geometry.neural_collapse(X, CLASSES, groups=GROUPS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weights": V[:2]}, r"weights are \[2, 5\], there are 3 classes of 5 features"),
        ({"weights": V, "bias": [0.0]}, "bias has 1 numbers"),
        ({"bias": B}, "bias= without weights="),
        ({"x": X * 0 + 1}, "all class means are equal"),
        ({"x": [X[:70], X[70:]]}, "an iterable of rows"),
    ],
)
def test_bad_input(given: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {"x": X, "labels": CLASSES, "groups": GROUPS} | given
    if isinstance(call["x"], list):
        call["groups"] = None
    with pytest.raises(SchemaError, match=message):
        geometry.neural_collapse(**call)
