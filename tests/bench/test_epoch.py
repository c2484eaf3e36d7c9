"""What an epoch is checked for before it is timed."""

from __future__ import annotations

import pytest
import torch

from bench.agreement import DisagreementError
from bench.epoch import check, numbered


def epoch(at: list[int]) -> list[torch.Tensor]:
    return [torch.from_numpy(numbered(0, 8)[at[start : start + 3]]) for start in range(0, len(at), 3)]


def test_every_row_once_in_another_order_passes():
    check("epoch", epoch([5, 1, 7, 0, 2, 3, 6, 4]), 8)


def test_lost_repeated_sorted_and_altered_rows_do_not():
    for at in ([5, 1, 7, 0, 2, 3, 6], [5, 1, 7, 0, 2, 3, 6, 5], [5, 5, 7, 0, 2, 3, 6, 4], list(range(8))):
        with pytest.raises(DisagreementError):
            check("epoch", epoch(at), 8)
    altered = epoch([5, 1, 7, 0, 2, 3, 6, 4])
    altered[1][0, -1] += 1
    with pytest.raises(DisagreementError):
        check("epoch", altered, 8)
    with pytest.raises(DisagreementError):
        check("epoch", [batch.float() for batch in epoch([5, 1, 7, 0, 2, 3, 6, 4])], 8)
