"""An estimate adds, subtracts, scales, and tells what it is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lamina.errors import SchemaError
from lamina.measures import Estimate, Replicates
from tests.faults import broken


def mean_of(values: np.ndarray, **given: object) -> Estimate:
    left = tuple(float(np.delete(values, at).mean()) for at in range(len(values)))
    replicates = Replicates(tuple(range(len(values))), (1,) * len(values), left)
    value = float(values.mean())
    whole = {"n": len(values), "n_groups": len(values), "estimator": "mean", "replicates": replicates} | given
    return Estimate("mean", value, replicates.stderr(value), **whole)  # type: ignore[arg-type]


A, B = np.random.default_rng(0).normal(size=(2, 12))


def check_a_difference() -> None:
    # what both share cancels: the error is that of the mean of the differences
    shared = 100 * np.random.default_rng(1).normal(size=12)
    difference = mean_of(A + shared) - mean_of(B + shared)
    assert difference.value == pytest.approx((A - B).mean())
    assert difference.stderr == pytest.approx((A - B).std(ddof=1) / math.sqrt(12))


def test_a_difference_has_the_paired_error() -> None:
    check_a_difference()


def test_errors_that_add_are_noticed() -> None:
    with broken("differences_add_their_errors"), pytest.raises(AssertionError):
        check_a_difference()


def test_a_mean_over_estimates_has_the_error_of_the_mean() -> None:
    middle = (mean_of(A) + mean_of(B)) / 2
    assert middle.value == pytest.approx(((A + B) / 2).mean())
    assert middle.stderr == pytest.approx(((A + B) / 2).std(ddof=1) / math.sqrt(12))
    assert (-2 * mean_of(A)).stderr == pytest.approx(2 * mean_of(A).stderr)


def test_the_interval_is_students() -> None:
    low, high = mean_of(A).interval(0.95)
    assert (low + high) / 2 == pytest.approx(A.mean())
    assert (high - low) / 2 == pytest.approx(2.201 * A.std(ddof=1) / math.sqrt(12), rel=1e-3)


def test_without_an_error_there_is_no_interval() -> None:
    assert all(map(math.isnan, Estimate("m", 1.0, math.nan).interval()))


def test_estimates_on_other_groups_do_not_subtract() -> None:
    with pytest.raises(SchemaError, match="not on the same groups"):
        _ = mean_of(A) - mean_of(B[:10])


def test_it_is_a_row_of_a_frame() -> None:
    frame = mean_of(A, dropped={"non_finite": 2}, options={"kernel": "linear"}).to_frame()
    names = ["measure", "part", "estimator", "options", "value", "unit", "stderr", "n", "n_groups", "dropped", "seed"]
    assert frame.columns == names
    assert frame["dropped"].to_list() == ['{"non_finite": 2}']
    assert frame["value"].to_list() == [A.mean()]


def test_it_is_frozen_and_is_a_number() -> None:
    estimate = mean_of(A)
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.value = 1.0  # type: ignore[misc]
    assert float(estimate) == A.mean()
    assert "12 rows in 12 groups" in repr(estimate)


def arrays(a: np.ndarray, b: np.ndarray) -> Estimate:
    """The means of two columns."""
    left = np.array([[np.delete(side, at).mean() for side in (a, b)] for at in range(len(a))])
    replicates = Replicates.of(range(len(a)), [1] * len(a), left)
    value = np.array([a.mean(), b.mean()])
    axes = {"side": ("left", "right")}
    return Estimate("means", value, replicates.stderr(value), n=12, n_groups=12, replicates=replicates, axes=axes)


def test_an_array_has_the_errors_of_its_numbers() -> None:
    both = arrays(A, B)
    for side, values in (("left", A), ("right", B)):
        number = both.at(side=side)
        assert (number.value, number.stderr) == (mean_of(values).value, pytest.approx(mean_of(values).stderr))
        assert number.interval() == pytest.approx(mean_of(values).interval())
    difference = arrays(A, B) - arrays(B, A)
    assert difference.at(side="left").stderr == pytest.approx((mean_of(A) - mean_of(B)).stderr)
    assert (both / 2).at(side="right").stderr == pytest.approx(mean_of(B).stderr / 2)
    assert both.to_frame().select("part", "value").rows() == [("left", A.mean()), ("right", B.mean())]
    assert both == arrays(A, B) != arrays(B, A)
    assert "side: 2" in repr(both)
    with pytest.raises(ValueError, match="read-only"):
        both.value[0] = 1


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(SchemaError, match="axes are"):
        Estimate("m", np.zeros(2), np.zeros(2))
    with pytest.raises(SchemaError, match="other axes"):
        _ = arrays(A, B) - mean_of(A)
    with pytest.raises(LookupError, match="no axis 'top'"):
        arrays(A, B).at(top=1)
    with pytest.raises(LookupError, match="no side 'up'"):
        arrays(A, B).at(side="up")
    with pytest.raises(TypeError, match="has axes side"):
        float(arrays(A, B))
