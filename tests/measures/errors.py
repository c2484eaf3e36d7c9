"""Claimed errors beside those of independent draws."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lamina.measures import Estimate


def compare_with_draws(
    estimates: Iterable[Estimate],
    ratio: tuple[float, float] = (0.8, 1.25),
    covered: tuple[float, float] = (0.88, 0.995),
) -> None:
    """Hold the mean claimed error to the draws' standard deviation, and the intervals of 95 % to the draws' mean."""
    found = list(estimates)
    values = np.array([estimate.value for estimate in found])
    mean, spread = values.mean(0), values.std(0)
    ends = np.array([estimate.interval(0.95) for estimate in found])
    of_spread = np.mean([estimate.stderr for estimate in found], 0) / spread
    covers = np.mean((ends[:, 0] < mean) & (mean < ends[:, 1]), 0)
    assert ((of_spread > ratio[0]) & (of_spread < ratio[1])).all(), f"errors are {of_spread} times those of the draws"
    assert ((covers >= covered[0]) & (covers <= covered[1])).all(), f"{covers} of the intervals cover"
