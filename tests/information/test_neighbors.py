"""Neighbors and counts against all differences."""

from __future__ import annotations

import numpy as np
import pytest

from lamina.information import neighbors, strips
from lamina.information.neighbors import nearest
from lamina.information.strips import Strips
from tests.faults import broken

SHAPES = [(60, 1, 1), (300, 2, 1), (200, 3, 1), (300, 2, 7), (200, 1, 50), (200, 4, 3)]


def drawn(n: int, d: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, groups of so many, all distances, and which rows are of other groups."""
    z = np.random.default_rng(n + d).normal(size=(n, d))
    codes = np.arange(n) // size
    return z, codes, np.abs(z[:, None] - z).max(2), codes[:, None] != codes


@pytest.mark.parametrize(("n", "d", "size"), SHAPES)
def test_neighbors_are_those_of_all_differences(n: int, d: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "BLOCK", 37)
    z, codes, apart, other = drawn(n, d, size)
    distances, rows = nearest(z, 4, codes)
    np.testing.assert_array_equal(distances, np.sort(np.where(other, apart, np.inf), 1)[:, :4])
    np.testing.assert_array_equal(apart[np.arange(n)[:, None], rows], distances)
    assert other[np.arange(n)[:, None], rows].all()


def test_rows_that_coincide_are_neighbors() -> None:
    distances, rows = nearest(np.zeros((9, 2)), 3, np.arange(9))
    assert not distances.any()
    assert (rows != np.arange(9)[:, None]).all()


def test_fewer_rows_than_neighbors() -> None:
    distances, _ = nearest(np.arange(4.0)[:, None], 5, np.array([0, 0, 1, 1]))
    assert np.isfinite(distances).sum(1).tolist() == [2, 2, 2, 2]


def check_counts() -> None:
    for n, d, size in SHAPES:
        z, codes, apart, other = drawn(n, d, size)
        # distances to rows, exactly: with them, and just without them
        distances = np.sort(np.where(other, apart, np.inf), 1)[:, 10]
        for radii in (distances, np.nextafter(distances, 0)):
            found, expected = Strips(z, radii, codes), (apart <= radii[:, None]) & other
            np.testing.assert_array_equal(found.counts, expected.sum(1))
            weights = np.random.default_rng(0).random(n)
            np.testing.assert_allclose(found.reach(weights), weights @ expected, rtol=1e-9, atol=1e-12)


def test_counts_are_those_of_all_differences() -> None:
    check_counts()


def test_rounded_sums_are_noticed() -> None:
    with broken("strips_trust_rounded_sums"), pytest.raises(AssertionError):
        check_counts()


def test_what_a_tree_reaches_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    z = np.random.default_rng(0).random((3000, 3))
    found = Strips(z, np.full(3000, 0.3), np.arange(3000))
    weights = 1 / found.counts
    whole = found.reach(weights)
    monkeypatch.setattr(strips, "HITS", 0)
    some = found.reach(weights)
    assert not np.array_equal(whole, some)
    assert np.corrcoef(whole, some)[0, 1] > 0.5
    assert abs(some.mean() - whole.mean()) < 0.1
