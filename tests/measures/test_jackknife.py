"""The jackknife of a mean is the mean's own standard error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lamina.errors import SchemaError
from lamina.measures import Replicates
from tests.faults import broken


def mean_without_each(values: np.ndarray, sizes: list[int]) -> Replicates:
    """Replicates of the mean of `values`, cut into buckets of these sizes."""
    buckets = np.repeat(np.arange(len(sizes)), sizes)
    left = tuple(float(values[buckets != bucket].mean()) for bucket in range(len(sizes)))
    return Replicates(tuple(range(len(sizes))), tuple(sizes), left)


def check_equal_buckets() -> None:
    values = np.random.default_rng(0).normal(size=40)
    one_by_one = mean_without_each(values, [1] * 40)
    assert one_by_one.stderr(values.mean()) == pytest.approx(values.std(ddof=1) / math.sqrt(40), rel=1e-12)
    means = values.reshape(10, 4).mean(1)
    by_four = mean_without_each(values, [4] * 10)
    assert by_four.stderr(values.mean()) == pytest.approx(means.std(ddof=1) / math.sqrt(10), rel=1e-12)


def check_unequal_buckets() -> None:
    # the variance of the mean of n independent numbers of variance 1 is 1 / n, however they are cut
    rng, sizes = np.random.default_rng(1), [1, 2, 3, 4, 10, 20]
    found = [mean_without_each(v, sizes).stderr(v.mean()) ** 2 for v in rng.normal(size=(4000, sum(sizes)))]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - 1 / sum(sizes)) < 4 * error


def check_both() -> None:
    check_equal_buckets()
    check_unequal_buckets()


def test_equal_buckets() -> None:
    check_equal_buckets()


def test_unequal_buckets() -> None:
    check_unequal_buckets()


@pytest.mark.parametrize("name", ["jackknife_takes_buckets_for_equal", "jackknife_forgets_its_factor"])
def test_a_wrong_jackknife_is_noticed(name: str) -> None:
    with broken(name), pytest.raises(AssertionError):
        check_both()


def test_one_bucket_has_no_error() -> None:
    assert math.isnan(Replicates(("a",), (3,), (1.0,)).stderr(1.0))


@pytest.mark.parametrize("left", [math.nan, math.inf, -math.inf])
def test_a_replicate_that_is_not_defined_leaves_no_error(left: float) -> None:
    """And no warning of NumPy's: what it would say, the NaN says."""
    assert math.isnan(Replicates(("a", "b"), (3, 3), (1.0, left)).stderr(1.0))


def test_other_groups_do_not_combine() -> None:
    with pytest.raises(SchemaError, match="not on the same groups"):
        Replicates(("a", "b"), (1, 1), (1.0, 2.0)).combine(Replicates(("a", "c"), (1, 1), (1.0, 2.0)), 1, -1)
