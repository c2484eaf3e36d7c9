"""Intervals cover the estimator's own mean at that n, from 2,000 independent draws; `coverage.md` has the figures."""

from __future__ import annotations

import numpy as np
import pytest

from tests.faults import broken
from tests.measures.coverage import DRAWS, FEW, HEAD, INTERVALS, PAGE, SITUATIONS, Coverage, lines, simulate
from tests.measures.test_registered import NAMES


def check_coverage(name: str, found: Coverage) -> None:
    situation = SITUATIONS[name]
    told = f"{name}: {found.covered} of the intervals cover {found.mean}"
    assert ((found.covered >= 0.9) & (found.covered <= 0.99)).all(), told
    if situation.unbiased:
        assert (np.abs(found.mean - situation.truth) < 4 * found.error + 0.02 * np.abs(situation.truth)).all(), told
        assert ((found.covered_truth >= 0.9) & (found.covered_truth <= 0.99)).all(), f"{name}: {found.covered_truth}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SITUATIONS)
def test_intervals_cover_as_the_page_says(name: str) -> None:
    found, text = lines(name)
    check_coverage(name, found)
    assert text in PAGE.read_text(), f"make the page anew: python -m tests.measures.coverage\n{text}"


def test_every_measure_is_simulated_and_has_its_lines() -> None:
    assert sorted({situation.measure for situation in SITUATIONS.values()}) == NAMES
    page = PAGE.read_text()
    assert page.startswith(HEAD.format(draws=DRAWS, few=FEW, intervals=INTERVALS)), "make the page anew"
    for situation in SITUATIONS.values():
        assert page.count(f"| `{situation.measure}` | {situation.what} |") >= 3, situation.what


def test_errors_that_are_too_small_are_noticed() -> None:
    name = "linear_regression of what is unrelated"
    with broken("jackknife_forgets_its_factor"):
        found = simulate(SITUATIONS[name], draws=40, intervals=40)
    with pytest.raises(AssertionError, match="of the intervals cover"):
        check_coverage(name, found)
