"""For every registered measure: rows with a planted truth, the fault that breaks it, and how its states merge.

`tests/measures/test_registered.py` makes the tests of these; a measure without a case fails there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Parts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Case:
    """Attributes.

    draw: The measure's arguments, float64 where they are rows, from a seed.
    truth: What the value is but for its error bar.
    within: How far beyond four error bars it may be: the estimator's bias on these rows.
    fault: The fault in `tests/faults/` under which it is not.
    merged: The value from a state for each part of 10 groups, merged in the order given; for measures that stream.
    """

    draw: Callable[[int], dict[str, Any]]
    truth: Any
    fault: str
    within: float = 0.0
    merged: Callable[[Parts], float] | None = None


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def documents(seed: int, times: int = 1) -> dict[str, Any]:
    """Two independent representations of 30 documents with 8 tokens each, and a flavor each."""
    n = 30 * times
    of_rows = np.repeat(np.arange(n), 8)
    x, y = (normal(2 * seed + i, 8 * n, 6) + 3 * normal(10**6 + 2 * seed + i, n, 6)[of_rows] for i in range(2))
    return {"x": x, "y": y, "groups": of_rows}


def unrelated(seed: int, times: int = 1) -> dict[str, Any]:
    """120 independent rows of 30 features that tell nothing of 4 others."""
    n = 120 * times
    return {"x": normal(2 * seed, n, 30), "y": normal(2 * seed + 1, n, 4), "groups": np.arange(n)}


CORRELATED = -np.log(1 - 0.8**2) / 2
"""The information of two normal numbers that correlate by 0.8."""


def correlated(seed: int, times: int = 1) -> dict[str, Any]:
    """600 rows of two features each, of which the first of x and the first of y correlate by 0.8."""
    n = 600 * times
    x, y = normal(2 * seed, n, 2), normal(2 * seed + 1, n, 2)
    y[:, 0] = 0.8 * x[:, 0] + 0.6 * y[:, 0]
    scale = torch.tensor([1.0, 0.5]).double()
    return {"x": x * scale, "y": y * scale, "groups": np.arange(n)}


def torus(seed: int, times: int = 1) -> dict[str, Any]:
    """Rows spread evenly over a flat torus of two dimensions, in four."""
    n = 600 * times
    angles = 2 * np.pi * torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"x": torch.cat([angles.cos(), angles.sin()], 1), "groups": np.arange(n)}


CORNERS = np.array([[0.0, 0, 0, 0], [3, 0, 0, 0], [0, 4, 0, 0]])


def classes(seed: int, times: int = 1) -> dict[str, Any]:
    """Standard normal classes around three corners of no simplex, of 300, 150 and 150 rows, in groups of 4."""
    at = np.arange(600 * times)
    labels = at % 4 // 2 + (at % 4 == 3)
    return {"x": torch.from_numpy(CORNERS[labels]) + normal(seed, len(at), 4), "labels": labels, "groups": at // 4}


def collapse_truth() -> np.ndarray:
    """NC1 to NC4 of those classes, from the corners; NC4 by summing the density over a grid."""
    middle = CORNERS - CORNERS.mean(0)
    norms = np.linalg.norm(middle, axis=1)
    cosines = (middle @ middle.T / np.outer(norms, norms))[np.tril_indices(3, -1)]
    grid = np.stack(np.meshgrid(*[np.linspace(-6, 10, 401)] * 2), -1)
    away = ((grid[:, :, None] - CORNERS[:, :2]) ** 2).sum(-1)
    wrong = away.argmin(-1)[..., None] != np.arange(3)
    nc4 = (np.exp(-away / 2) / (2 * np.pi) * wrong * [0.5, 0.25, 0.25]).sum() * 0.04**2
    nc1 = np.trace(np.linalg.pinv(middle.T @ middle / 3, rcond=1e-10)) / 3
    return np.array([nc1, norms.std() / norms.mean(), np.abs(cosines + 0.5).mean(), nc4])


def collapse_merged(parts: Parts) -> float:
    from lamina.geometry.collapse import ClassSums, Scatter

    given = classes(0)
    x, labels, of_rows = given["x"], given["labels"], given["groups"] % 10
    sums, scatters = [], []
    for part in parts:
        sums.append(ClassSums(10, 3, 4))
        scatters.append(Scatter(torch.from_numpy(CORNERS), 10, None))
        rows = np.flatnonzero(np.isin(of_rows, list(part)))
        for state in (sums[-1], scatters[-1]):
            state.update(x[torch.from_numpy(rows)], labels[rows], of_rows[rows])
    for some, scatter in zip(sums[1:], scatters[1:], strict=True):
        sums[0].merge(some)
        scatters[0].merge(scatter)
    return float(sums[0].means().sum() + scatters[0].product().sum() + scatters[0].wrong.sum())


def cka_merged(parts: Parts) -> float:
    from tests.similarity.test_cka import SIZES
    from tests.similarity.test_merging import linear

    return linear([list(part) for part in parts], SIZES["unequal"])


def linear_regression_merged(parts: Parts) -> float:
    from lamina.similarity.least_squares import Moments

    x, y, groups = normal(0, 200, 5), normal(1, 200, 2), np.repeat(np.arange(10), 20)
    states = []
    for part in parts:
        states.append(Moments(2, 5, 2))
        for group in part:
            rows = torch.from_numpy(groups == group)
            states[-1].update(x[rows], y[rows], groups[groups == group] % 2)
    for other in states[1:]:
        states[0].merge(other)
    return float(states[0].fitted_without(0)[2].square().sum())


CASES = {
    "geometry.neural_collapse": Case(
        classes, collapse_truth(), "collapse_forgets_the_number_of_classes", within=0.01, merged=collapse_merged
    ),
    "geometry.twonn": Case(torus, 2.0, "twonn_swaps_the_neighbors"),
    "information.ksg": Case(correlated, CORRELATED, "ksg_forgets_the_nearest", within=0.05),
    "similarity.cka": Case(documents, 0.0, "cka_ignores_groups", merged=cka_merged),
    "similarity.distance_correlation": Case(documents, 0.0, "panels_count_pairs_within_groups"),
    "similarity.hsic": Case(documents, 0.0, "cka_ignores_groups", merged=cka_merged),
    # 96 rows fit 30 features and an intercept: -30 / (96 - 30 - 2)
    "similarity.linear_regression": Case(
        unrelated, -0.47, "regression_fits_what_it_scores", within=0.1, merged=linear_regression_merged
    ),
}
