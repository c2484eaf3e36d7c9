"""Permutation tests move whole groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lamina import similarity
from lamina.errors import SchemaError
from lamina.measures import Estimate, permutation_test
from tests.faults import broken
from tests.measures.cases import normal


def product(x: Any, y: Any, *, groups: Any, pair: str | None) -> Estimate:
    """The mean product of two columns."""
    value = float((x.gather(slice(None)) * y.gather(slice(None))).mean())
    return Estimate("product", value, float("nan"), n=len(x))


def check_levels() -> None:
    """Independent columns with an effect of each group: the test rejects as often as it says, whatever the sizes."""
    for sizes in ([10] * 12, [4] * 6 + [9] * 6):
        of_rows = np.repeat(np.arange(12), sizes)
        p = []
        for seed in range(60):
            noise = 0.1 * normal(500 + seed, 2, len(of_rows), 1)
            x, y = (normal(2 * seed + i, 12, 1)[of_rows] + noise[i] for i in (0, 1))
            p.append(permutation_test(product, x, y, seed=seed, permutations=39, groups=of_rows).p)
        assert np.mean(np.array(p) <= 0.25) < 0.25 + 3 * np.sqrt(0.25 * 0.75 / 60)
        assert min(p) >= 1 / 40


def test_the_level_is_kept() -> None:
    check_levels()


def test_rows_that_move_alone_are_noticed() -> None:
    with broken("permutations_move_rows"), pytest.raises(AssertionError):
        check_levels()


def test_what_depends_is_found() -> None:
    of_rows = np.repeat(np.arange(20), 3)
    x = normal(0, 60, 4)
    y = x[:, :3] + 0.5 * normal(1, 60, 3)
    found = permutation_test(similarity.cka, x, y, seed=0, permutations=9, groups=of_rows)
    assert found.p == pytest.approx(0.1)
    assert found.null.shape == (9,)
    assert found.estimate.value > found.null.max()
    x, y = x[:, :1], y[:, :1]
    both = permutation_test(product, x, y, seed=0, permutations=39, groups=of_rows, alternative="two-sided")
    assert both.p == pytest.approx(0.05)
    assert permutation_test(product, x, -x, seed=0, permutations=19, alternative="less").p == 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.repeat(np.arange(5), [1, 2, 3, 4, 5])}, "can trade places in 1 ways"),
        ({"permutations": 0}, "permutations=0"),
        ({"alternative": "more"}, "alternative='more'"),
    ],
)
def test_what_cannot_be_tested(options: dict[str, Any], message: str) -> None:
    x = torch.zeros(15, 1)
    with pytest.raises(SchemaError, match=message):
        permutation_test(product, x, x, seed=0, **options)


def test_an_iterable_is_refused() -> None:
    blocks = [torch.zeros(4, 1), torch.zeros(4, 1)]
    with pytest.raises(SchemaError, match="iterable"):
        permutation_test(product, blocks, blocks, seed=0)
