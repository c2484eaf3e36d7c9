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
    fault: The fault in `tests/faults.py` under which it is not.
    merged: The value from a state for each part of 10 groups, merged in the order given; for measures that stream.
    """

    draw: Callable[[int], dict[str, Any]]
    truth: Any
    fault: str
    within: float = 0.0
    merged: Callable[[Parts], float] | None = None


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def documents(seed: int) -> dict[str, Any]:
    """Two independent representations of 30 documents with 8 tokens each, and a flavor each."""
    of_rows = np.repeat(np.arange(30), 8)
    x, y = (normal(2 * seed + i, 240, 6) + 3 * normal(1000 + 2 * seed + i, 30, 6)[of_rows] for i in range(2))
    return {"x": x, "y": y, "groups": of_rows}


def unrelated(seed: int) -> dict[str, Any]:
    """120 independent rows of 30 features that tell nothing of 4 others."""
    return {"x": normal(2 * seed, 120, 30), "y": normal(2 * seed + 1, 120, 4), "groups": np.arange(120)}


def torus(seed: int) -> dict[str, Any]:
    """Rows spread evenly over a flat torus of two dimensions, in four."""
    angles = 2 * np.pi * torch.rand(600, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"x": torch.cat([angles.cos(), angles.sin()], 1), "groups": np.arange(600)}


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
    "geometry.twonn": Case(torus, 2.0, "twonn_swaps_the_neighbors"),
    "similarity.cka": Case(documents, 0.0, "cka_ignores_groups", merged=cka_merged),
    # 96 rows fit 30 features and an intercept: -30 / (96 - 30 - 2)
    "similarity.linear_regression": Case(
        unrelated, -0.47, "regression_fits_what_it_scores", within=0.1, merged=linear_regression_merged
    ),
}
