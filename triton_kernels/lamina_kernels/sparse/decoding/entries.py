"""Codes as all passes over them take them: entries that stand one after the other, in lists."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes, demand_in_range

MOST = torch.iinfo(torch.int32).max
"""Entries that int32 counts."""


class Entries(NamedTuple):
    """The entries of codes, a list for each row.

    Attributes:
        values: [nnz].
        ids: [nnz], int32 or int64.
        offsets: [n + 1] int64: list i are the entries from `offsets[i]` to `offsets[i + 1]`.
    """

    values: Tensor
    ids: Tensor
    offsets: Tensor


def entries(codes: Codes) -> Entries:
    """Return the entries of codes, differentiable in the values."""
    ids = codes.ids if codes.ids.dtype in (torch.int32, torch.int64) else codes.ids.int()
    if ids.numel() > MOST:
        # Offsets take the dtype of the ids.
        ids = ids.long()
    if codes.indptr is not None:
        return Entries(codes.values.contiguous(), ids.contiguous(), codes.indptr)
    n, k = codes.values.shape
    offsets = torch.arange(0, n * k + 1, k, device=ids.device) if k else ids.new_zeros(n + 1, dtype=torch.int64)
    return Entries(codes.values.contiguous().view(-1), ids.contiguous().view(-1), offsets)


def demand_atoms(ids: Tensor, units: int) -> None:
    """Raise ValueError for an id without an atom, on a CPU; on a GPU, where looking waits, such entries become NaN."""
    if not ids.is_cuda:
        demand_in_range("decode", ids, units)
