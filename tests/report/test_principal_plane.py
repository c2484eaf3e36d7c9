from __future__ import annotations

import numpy as np
import pytest

from lamina.report import principal
from lamina.report.principal import leading_plane
from tests.faults import broken


def test_a_planted_plane_is_found_with_its_distances() -> None:
    rng = np.random.default_rng(0)
    planted = rng.normal(size=(50, 2)) * [5, 2]
    basis = np.linalg.qr(rng.normal(size=(20, 2)))[0]
    plane, share = leading_plane(planted @ basis.T + 7)
    assert share == pytest.approx(1)
    centered = planted - planted.mean(axis=0)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=1), np.linalg.norm(centered, axis=1))


def test_the_share_of_variance_is_that_of_the_two_largest() -> None:
    rows = np.concatenate([np.diag([4.0, 2.0, 1.0]), -np.diag([4.0, 2.0, 1.0])])
    assert leading_plane(rows)[1] == pytest.approx((16 + 4) / (16 + 4 + 1))


@pytest.mark.parametrize("shape", [(1, 5), (4, 1), (3, 2)])
def test_degenerate_rows_still_have_a_plane(shape: tuple[int, int]) -> None:
    plane, share = leading_plane(np.ones(shape))
    assert plane.shape == (shape[0], 2)
    assert share == 0
    assert not plane.any()


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_a_planted_turn_or_mirror_image_is_undone(mirror: float) -> None:
    target = np.random.default_rng(1).normal(size=(30, 2))
    turn = np.array([[np.cos(2), -np.sin(2)], [np.sin(2), np.cos(2)]]) * [1, mirror]
    points = 1e-3 * target @ turn
    np.testing.assert_allclose(points @ principal.rotation_onto(points, target), 1e-3 * target)


def test_the_mirror_image_is_shown_to_need_reflections() -> None:
    with broken("procrustes_only_turns"), pytest.raises(AssertionError):
        test_a_planted_turn_or_mirror_image_is_undone(-1.0)
