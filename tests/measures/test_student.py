"""Student's t against printed tables and against SciPy."""

from __future__ import annotations

import pytest
from scipy.stats import t as student

from lamina.measures.student import t_quantile
from tests.faults import broken

TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262, 10: 2.228, 30: 2.042}


def check_the_table() -> None:
    for freedom, expected in TABLE.items():
        assert t_quantile(0.95, freedom) == pytest.approx(expected, abs=5e-4), freedom


def test_quantiles_stand_in_the_table() -> None:
    check_the_table()


def test_the_normal_distribution_is_not_good_enough() -> None:
    with broken("intervals_are_normal"), pytest.raises(AssertionError):
        check_the_table()


@pytest.mark.parametrize("level", [0.01, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("freedom", [1, 2, 5, 8, 31, 200])
def test_quantiles_equal_those_of_scipy(level: float, freedom: int) -> None:
    assert t_quantile(level, freedom) == pytest.approx(student.ppf((1 + level) / 2, freedom), rel=1e-11)


@pytest.mark.parametrize(("level", "freedom"), [(0, 3), (1, 3), (0.9, 0)])
def test_what_has_no_quantile_is_refused(level: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="level"):
        t_quantile(level, freedom)
