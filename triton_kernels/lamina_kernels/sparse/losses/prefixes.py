"""The entries of codes by the prefix of the dictionary in which they come in."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding.entries import Entries
from lamina_kernels.sparse.decoding.units import rows_of


def split(e: Entries, prefixes: list[int]) -> tuple[Entries, Tensor | None]:
    """Return lists of entries, one for each row and each part between two prefixes, and the entries' order.

    Args:
        e: The entries of n rows.
        prefixes: P numbers of units, ascending.

    Returns:
        n P lists, those of a row after each other, and where their entries stood, [nnz] int64 (None: in this order).
    """
    if len(prefixes) == 1:
        return e, None
    parts = torch.bucketize(e.ids, torch.tensor(prefixes, device=e.ids.device), right=True)
    lists = rows_of(e.ids, e.offsets).long() * len(prefixes) + parts
    keys, order = lists.sort(stable=True)
    count = (len(e.offsets) - 1) * len(prefixes)
    offsets = torch.searchsorted(keys, torch.arange(count + 1, device=keys.device))
    return Entries(e.values[order], e.ids[order], offsets), order
