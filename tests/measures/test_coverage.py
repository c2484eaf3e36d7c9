"""Intervals cover the estimator's own mean at that n, from 2,000 independent draws."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults import broken
from tests.measures.cases import CASES
from tests.measures.test_registered import NAMES, OWN, call


def check_coverage(name: str, draws: int, intervals: int) -> None:
    each, case = OWN[name], CASES[name]
    estimates = [call(each, case.draw(10 + seed)) for seed in range(draws)]
    mean = np.mean([np.asarray(estimate.value) for estimate in estimates], axis=0)
    ends = np.array([estimate.interval(0.95) for estimate in estimates[:intervals]])
    covered = np.mean((ends[:, 0] < mean) & (mean < ends[:, 1]), axis=0)
    low, high = case.covers
    assert ((covered >= low) & (covered <= high)).all(), f"{name}: {covered} of the intervals cover {mean}"
    error = np.std([np.asarray(estimate.value) for estimate in estimates], axis=0) / np.sqrt(draws)
    assert (np.abs(mean - case.truth) < 4 * error + case.within + 0.02).all(), f"{name}: {mean} instead of {case.truth}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_intervals_cover(name: str) -> None:
    check_coverage(name, 2_000, 200)


def test_errors_that_are_too_small_are_noticed() -> None:
    with broken("jackknife_forgets_its_factor"), pytest.raises(AssertionError, match="of the intervals cover"):
        check_coverage("similarity.linear_regression", 40, 40)
