"""Sorting rows by group, and sums over groups."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lamina_kernels.gram.paired import blocked
from lamina_kernels.gram.paired.groups import by_group, segment_sums, sum_groups
from tests.kernels.hsic_checks import ids, normal


def test_rows_are_sorted_by_group_and_keep_their_order_inside():
    made = by_group(torch.tensor([2, 0, 4, 2, 0]), 5)
    assert made.order.tolist() == [1, 4, 0, 3, 2]
    assert made.ids.tolist() == [0, 0, 2, 2, 4]
    assert made.bounds.tolist() == [0, 2, 2, 4, 4, 5]


def test_no_rows_have_no_groups():
    made = by_group(torch.empty(0, dtype=torch.long), 0)
    assert made.order.shape == (0,)
    assert made.bounds.tolist() == [0]


def of_a_tile(few: int) -> Callable[..., torch.Tensor]:
    def sums(rows: torch.Tensor, group: torch.Tensor, count: int) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocked, "FEW", few)
            turned = rows.T.contiguous().T
            return blocked._of_groups(turned, group, by_group(group, count).bounds.tolist())

    return sums


@pytest.mark.parametrize("sums", [sum_groups, segment_sums, of_a_tile(few=9), of_a_tile(few=8)])
def test_groups_are_summed_apart(sums):
    group = ids(50, 8, seed=0).sort().values
    rows = normal(50, 3, seed=1)
    rows[20] = torch.inf
    expected = torch.stack([rows[group == g].sum(0) for g in range(9)])
    torch.testing.assert_close(sums(rows, group, 9), expected)
    assert sums(rows, group, 9).isinf().any(1).sum() == 1
