"""The members of each code: how many rows chose it, and their sum."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.paired.groups import sum_groups
from lamina_kernels.tiles.rows import accumulation_dtype, tiles

_PIECE = 8192
"""Rows in memory at a time, in float64."""


def counts(places: Tensor, codes: int) -> Tensor:
    """Return how many rows chose each code, [codes] int64.

    Args:
        places: [n] int64, the code of each row; -1 for none.
        codes: How many codes there are.
    """
    return torch.zeros(codes + 1, dtype=torch.int64, device=places.device).scatter_add_(
        0, places.remainder(codes + 1), torch.ones_like(places)
    )[:codes]


def sums(x: Tensor, places: Tensor, codes: int) -> Tensor:
    """Return the sum of the rows that chose each code, [codes, d]; added in float64, always in the same order.

    Args:
        x: [n, d].
        places: As of `counts`.
        codes: As of `counts`.
    """
    # Rows without a code go to one that is cut off.
    places = places.remainder(codes + 1)
    if x.is_cuda:
        ids, order = places.sort(stable=True)
        return sum_groups(x.double()[order], ids, codes + 1)[:codes].to(accumulation_dtype(x.dtype))
    out = torch.zeros(codes + 1, x.shape[1], dtype=torch.float64, device=x.device)
    for rows in tiles(len(x), _PIECE):
        out = out.index_add_(0, places[rows], x[rows].double())
    return out[:codes].to(accumulation_dtype(x.dtype))
