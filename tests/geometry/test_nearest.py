"""The nearest rows, against all distances in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lamina.geometry import nearest as room
from lamina.geometry.nearest import nearest
from lamina.rows.aligned import align
from lamina.rows.centering import centered
from tests.faults import broken
from tests.measures.cases import normal


def reference(x: torch.Tensor, groups: np.ndarray, k: int) -> torch.Tensor:
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    distances[torch.from_numpy(groups[:, None] == groups)] = torch.inf
    return distances.sort(1).values[:, :k]


def check_exact(x: torch.Tensor, groups: np.ndarray, again: bool = False) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "BLOCK", 230 * x.shape[1])
        aligned, (by, _) = centered(align(x, x, groups=groups))
        found = nearest(aligned, np.arange(len(x)), 3, dtype=by.dtype, within_groups=False)
    expected = reference(x, groups, 3)
    torch.testing.assert_close(found.distances, expected, rtol=1e-12, atol=0)
    there = (x.double() - x[found.rows[:, 1]].double()).norm(dim=1)
    torch.testing.assert_close(found.distances[:, 1], there, rtol=1e-12, atol=0)
    assert (found.again > 0) == again


SINGLE, TEXTS = np.arange(500), np.arange(500) // 7
CLOUD = normal(0, 500, 12).float()
# pairs of rows that single precision cannot tell apart by products: far from the origin, and near each other
PAIRS = torch.cat([100 * CLOUD, 100 * CLOUD + 1e-4 * normal(1, 500, 12).float()])


def test_a_cloud() -> None:
    check_exact(CLOUD, SINGLE)
    check_exact(CLOUD.double(), SINGLE)


def test_neighbors_in_other_groups() -> None:
    check_exact(CLOUD, TEXTS)


def test_neighbors_below_the_rounding_of_products() -> None:
    crowd = torch.cat([1000 * normal(2, 20, 12), 1e-3 * normal(3, 480, 12)]).float()
    check_exact(crowd, SINGLE, again=True)
    check_exact(PAIRS, np.arange(1000))


@pytest.mark.parametrize("name", ["nearest_trusts_products", "nearest_forgets_the_last_block"])
def test_faults_are_noticed(name: str) -> None:
    with broken(name), pytest.raises(AssertionError):
        test_neighbors_below_the_rounding_of_products()


def test_fewer_rows_than_neighbors() -> None:
    x = normal(0, 3, 2)
    aligned, (by, _) = centered(align(x, x))
    found = nearest(aligned, np.arange(3), 3, dtype=by.dtype, within_groups=True)
    assert torch.isinf(found.distances[:, 2]).all()
    torch.testing.assert_close(found.distances[:, :2], reference(x, np.arange(3), 2))
