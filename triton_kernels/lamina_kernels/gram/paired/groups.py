"""Rows in the order of their groups."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Sorted(NamedTuple):
    """Rows sorted by group; rows of one group keep their order.

    Attributes:
        order: [m] int64, the rows.
        ids: [m] int64, the group of each row in that order.
        bounds: [n_groups + 1] int64: group g stands at bounds[g] to bounds[g + 1].
    """

    order: torch.Tensor
    ids: torch.Tensor
    bounds: torch.Tensor


def by_group(groups: torch.Tensor, n_groups: int) -> Sorted:
    """Sort rows by the ids of their groups, which are from 0 to `n_groups` - 1."""
    ids, order = groups.sort(stable=True)
    return Sorted(order, ids, torch.searchsorted(ids, torch.arange(n_groups + 1, device=ids.device)))


def sum_groups(rows: torch.Tensor, group: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Sum the rows of each group.

    A product with the matrix of memberships would let one infinite row break the sums of all groups.

    Args:
        rows: [b, c].
        group: [b] int64, sorted, from 0.
        n_groups: One more than the largest group.

    Returns:
        [n_groups, c], in the dtype of the rows.
    """
    if rows.is_cuda:
        # There, adding by index is in no fixed order.
        return segment_sums(rows, group, n_groups)
    return rows.new_zeros(n_groups, rows.shape[1]).index_add_(0, group, rows)


def segment_sums(rows: torch.Tensor, group: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Do what `sum_groups` does, one group after the other: slower on a CPU, in a fixed order on a GPU."""
    bounds = torch.searchsorted(group, torch.arange(n_groups + 1, device=group.device))
    return torch.segment_reduce(rows, "sum", lengths=bounds.diff(), axis=0)
