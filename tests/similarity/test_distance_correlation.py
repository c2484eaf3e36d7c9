"""Distance correlation, and HSIC itself, against their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lamina import similarity
from lamina.errors import SchemaError
from lamina.measures import Estimate
from lamina.similarity import kernelized
from tests.faults import broken
from tests.measures.cases import normal
from tests.measures.coverage import distance_correlation_of_normal_numbers, lines_of_normal_numbers
from tests.meter import peak_bytes
from tests.similarity import dense
from tests.similarity.test_cka import SIZES, check_replicates, planted, way

Kernel = Callable[[np.ndarray], np.ndarray]


def distances(x: np.ndarray) -> np.ndarray:
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def check_equal_to_dense(measure: Any, definition: Any, kernel: Kernel, sizes: list[int]) -> None:
    x, y, groups = planted(sizes)
    k, l = kernel(x.numpy()), kernel(y.numpy())  # noqa: E741
    estimate = measure(x, y, groups=groups)
    assert estimate.value == pytest.approx(definition(k, l, groups), rel=1e-8)
    left = []
    for group in np.unique(groups):
        rows = np.ix_(groups != group, groups != group)
        left.append(definition(k[rows], l[rows], groups[groups != group]))
    check_replicates(estimate, left)


@pytest.mark.parametrize("panel", [4096, 5])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_distance_correlation_of_groups_of_every_kind(
    sizes: list[int], panel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernelized, "PANEL", panel)
    check_equal_to_dense(similarity.distance_correlation, dense.cka, distances, sizes)


@pytest.mark.parametrize("panels", [False, True], ids=["moments", "panels"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_hsic_of_groups_of_every_kind(sizes: list[int], panels: bool) -> None:
    with way(panels):
        check_equal_to_dense(similarity.hsic, dense.hsic, dense.linear, sizes)


def test_the_definition_in_loops() -> None:
    x, y, groups = planted([1, 2, 3, 2, 1, 1])
    k, l = distances(x.numpy()), distances(y.numpy())  # noqa: E741
    found = similarity.distance_correlation(x, y, groups=groups).parts["dcov_xy"]
    assert found == pytest.approx(dense.by_loops(k, l, groups), rel=1e-8)


def test_single_rows_are_the_u_centered_distances_of_szekely_and_rizzo() -> None:
    x, y, _ = planted(SIZES["single"])
    centered = []
    for d in (distances(x.numpy()), distances(y.numpy())):
        n, rows = len(d), d.sum(0)
        u = d - rows / (n - 2) - rows[:, None] / (n - 2) + d.sum() / ((n - 1) * (n - 2))
        centered.append(u * (1 - np.eye(n)))
    a, b = centered
    expected = (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
    assert similarity.distance_correlation(x, y).value == pytest.approx(expected, rel=1e-8)


def check_normal_numbers() -> None:
    estimate = similarity.distance_correlation(**lines_of_normal_numbers(0, 20))
    assert abs(estimate.value - distance_correlation_of_normal_numbers(0.8)) < 4 * estimate.stderr
    assert estimate.stderr < 0.02


def test_normal_numbers_have_the_closed_form() -> None:
    check_normal_numbers()


def test_squared_distances_are_noticed() -> None:
    with broken("distances_forget_their_root"), pytest.raises(AssertionError):
        check_normal_numbers()


def test_hsic_of_a_copy_is_the_square_of_the_covariance() -> None:
    x = normal(0, 2000, 4) * torch.tensor([1.0, 2.0, 0.5, 0.0])
    estimate = similarity.hsic(x, x)
    assert abs(estimate.value - (1 + 16 + 0.5**4)) < 4 * estimate.stderr
    biased = similarity.hsic(x, x, debiased=False, kernel="rbf")
    k = dense.rbf(x.numpy(), biased.parts["bandwidth_x"])
    h = k - k.mean(0) - k.mean(1)[:, None] + k.mean()
    assert biased.value == pytest.approx((h * h).mean(), rel=1e-6)


def twenty_documents(measure: Callable[..., Estimate], draws: int, by_row: int) -> tuple[float, float, float]:
    """20 documents of 100 rows: how far the mean is from 0; intervals that cover it, by document and by row."""
    of_rows, found, rowwise = np.repeat(np.arange(20), 100), [], []
    for seed in range(draws):
        x, y = (normal(2 * seed + i, 2000, 4) + normal(10**6 + 2 * seed + i, 20, 4)[of_rows] for i in range(2))
        found.append(measure(x, y, groups=of_rows))
        rowwise += [measure(x, y)] if seed < by_row else []
    values = np.array([estimate.value for estimate in found])
    covered, rows = (np.mean([np.prod(each.interval()) < 0 for each in some]) for some in (found, rowwise))
    return float(abs(values.mean()) / (values.std() / np.sqrt(draws))), float(covered), float(rows)


@pytest.mark.parametrize("measure", [similarity.hsic, similarity.distance_correlation], ids=lambda each: each.__name__)
def test_twenty_documents_of_a_hundred_rows(measure: Callable[..., Estimate]) -> None:
    distance, covered, covered_by_row = twenty_documents(measure, 30, 6)
    assert distance < 3
    assert covered >= 0.9
    assert covered_by_row < 0.5  # a document's flavor is taken for dependence, with a small error


def test_rows_of_an_iterable_are_refused() -> None:
    x = [normal(0, 20, 3)]
    with pytest.raises(SchemaError, match="an iterable with kernel='distance'"):
        similarity.distance_correlation(x, x)
    with pytest.raises(SchemaError, match="kernel='cosine'"):
        similarity.hsic(normal(0, 20, 3), normal(1, 20, 3), kernel="cosine")  # type: ignore[arg-type]


def test_near_rows_in_single_precision() -> None:
    """Two tight clusters far apart, whose inner distances a product in float32 would round to nothing."""
    x = (1e-3 * normal(0, 200, 40) + 10 * torch.sign(normal(2, 200, 1))).float()
    y = normal(1, 200, 2).float()
    k, l = distances(x.double().numpy()), distances(y.double().numpy())  # noqa: E741
    found = similarity.distance_correlation(x, y).value
    assert found == pytest.approx(dense.cka(k, l, np.arange(200)), rel=1e-6)


SNIPPET = """
    import torch
    from lamina import similarity
    x = torch.sin(torch.arange({n} * 4.0).view(-1, 4) * 1.7)
    assert similarity.distance_correlation(x, x[:, :2].clone()).n == {n}
"""


def test_memory_does_not_grow_with_the_pairs() -> None:
    # all distances of 5,000 rows are 200 MB in float64
    assert peak_bytes(SNIPPET.format(n=5_000)) - peak_bytes(SNIPPET.format(n=500)) < 100 * 2**20
