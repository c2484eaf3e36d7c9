"""Near independence the error of CKA is that of the draws, not the jackknife's, which counts pairs of groups twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch

from lamina import similarity
from lamina.rows.aligned import align
from lamina.similarity import jackknifed
from lamina.similarity.degenerate import less_counted_twice
from lamina.similarity.kernelized import hsic_panels
from tests.faults import broken
from tests.measures.cases import documents, normal
from tests.measures.errors import compare_with_draws
from tests.similarity import dense
from tests.similarity.test_cka import SIZES, planted, way


def check_independent() -> None:
    found = [similarity.cka(**documents(seed)) for seed in range(100)]
    stderr = np.mean([estimate.stderr for estimate in found])
    assert 0.9 < stderr / np.std([estimate.value for estimate in found]) < 1.35
    # the replicates are drawn in to that error
    for each in found[:10]:
        assert each.replicates
        assert each.replicates.stderr(each.value) == pytest.approx(each.stderr, rel=1e-9)


def test_independent_documents() -> None:
    check_independent()


def test_pairs_counted_twice_are_noticed() -> None:
    with broken("cka_counts_pairs_twice"), pytest.raises(AssertionError):
        check_independent()


def check_differences(kernel: Literal["linear", "rbf"], draws: int = 120) -> None:
    found = []
    for seed in range(draws):
        x, y, z = (normal(3 * seed + i, 120, 4) for i in range(3))
        first, second = (similarity.cka(x, other, groups=np.arange(120) // 4, kernel=kernel) for other in (y, z))
        found.append(first - second)
    compare_with_draws(found, ratio=(0.85, 1.25))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_differences_near_independence(kernel: Literal["linear", "rbf"]) -> None:
    check_differences(kernel)


def test_differences_of_jackknives_are_noticed() -> None:
    with broken("differences_take_the_jackknife"), pytest.raises(AssertionError):
        check_differences("linear")


def test_where_representations_agree_nothing_is_taken() -> None:
    x = normal(0, 400, 6)
    estimate = similarity.cka(x, x + 0.5 * normal(1, 400, 6), groups=np.arange(400) // 4)
    assert estimate.replicates
    assert estimate.stderr == pytest.approx(estimate.replicates.stderr(estimate.value), rel=0.02)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_products_of_two_buckets(sizes: list[int]) -> None:
    x, y, groups = planted(sizes)
    centered = [side - side.mean(0) for side in (x, y)]
    k, l = (side @ side.T for side in centered)  # noqa: E741
    buckets, _ = align(x, y, groups=groups).groups.buckets()
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(buckets[groups])).double()
    expected = (one_hot.T @ (k * l) @ one_hot).numpy() / (len(x) ** 2 - sum(size**2 for size in sizes))
    aligned = align(x, y, groups=groups)
    with way(panels=False):
        moments = jackknifed.hsic_linear(aligned, debiased=True)
    panels = hsic_panels(aligned, kernel="linear", debiased=True, bandwidth=1.0, seed=0)
    apart = ~np.eye(len(expected), dtype=bool)
    for found in (moments, panels):
        assert found.pairs
        np.testing.assert_allclose(found.pairs["xy"][apart], expected[apart], rtol=1e-9, atol=1e-12)


def check_products_of_centered_kernels(sizes: list[int]) -> None:
    x, y, groups = planted(sizes)
    aligned = align(x, y, groups=groups)
    found = hsic_panels(aligned, kernel="rbf", debiased=True, bandwidth=0.7, seed=0)
    centered = []
    for side, rows in (("x", x), ("y", y)):
        k = np.where(groups[:, None] == groups, 0, dense.rbf(rows.numpy(), found.bandwidths[f"bandwidth_{side}"]))
        mean = k.sum(1) / (groups[:, None] != groups).sum(1)
        centered.append(k - mean[:, None] - mean + mean.mean())
    buckets, _ = aligned.groups.buckets()
    one_hot = np.eye(buckets.max() + 1)[buckets[groups]]
    expected = one_hot.T @ (centered[0] * centered[1]) @ one_hot / (len(x) ** 2 - sum(size**2 for size in sizes))
    assert found.pairs
    apart = ~np.eye(len(expected), dtype=bool)
    np.testing.assert_allclose(found.pairs["xy"][apart], expected[apart], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_products_of_centered_kernels(sizes: list[int]) -> None:
    check_products_of_centered_kernels(sizes)


def test_kernels_that_are_not_centered_are_noticed() -> None:
    with broken("kernels_are_not_centered"), pytest.raises(AssertionError):
        check_products_of_centered_kernels(SIZES["equal"])


def noise(g: int, *, unknown: Callable[[np.ndarray], np.ndarray] = lambda pairs: pairs) -> tuple[float, float]:
    """The mean variance of a sum of independent terms of pairs: as it is, and as it is estimated."""
    generator, sums, errors = np.random.default_rng(0), [], []
    for _ in range(400):
        pairs = np.triu(generator.normal(size=(g, g)), 1)
        pairs += pairs.T
        value, rows = pairs.sum() / (g * (g - 1)), pairs.sum(1)
        left = (pairs.sum() - 2 * rows) / ((g - 1) * (g - 2))
        jackknife = float(np.sqrt((g - 1) / g * np.square(left - left.mean()).sum()))
        sums.append(value)
        errors.append(less_counted_twice(jackknife, unknown(pairs / (g * (g - 1))), [1] * g) ** 2)
    return float(np.var(sums)), float(np.mean(errors))


def test_a_sum_over_pairs() -> None:
    true, found = noise(16)
    assert 0.9 < found / true < 1.35
    # pairs of the buckets that are held at a time, as where there is no room for all
    block = np.where(np.equal.outer(np.arange(16) // 4, np.arange(16) // 4), 1.0, np.nan)
    true, found = noise(16, unknown=lambda pairs: pairs * block)
    assert 0.9 < found / true < 1.6


def test_nothing_is_known_of_pairs() -> None:
    assert less_counted_twice(0.1, np.full((6, 6), np.nan), [1] * 6) == 0.1
    assert np.isnan(less_counted_twice(float("nan"), np.zeros((6, 6)), [1] * 6))
    assert less_counted_twice(0.1, np.zeros((6, 6)), [1, 2, 3, 4, 5, 6]) == 0.1
