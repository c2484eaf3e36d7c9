"""Entries in the order of their units: what the gradient of a dictionary is summed in."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PIECE = 1024
"""Entries that are summed one after the other. The sum of a unit that has more is that of its pieces."""


class Runs(NamedTuple):
    """The entries of each unit, in the order of their rows.

    Attributes:
        order: [nnz] int64, entries by unit.
        units: [nnz], the unit of each entry in that order; M for an id that is out of range.
        rows: [nnz], the row of each entry in that order.
        starts: [M] int64, where the entries of each unit begin.
        ends: [M] int64, where they end; of a unit that is cut into pieces, where they begin.
        piece_starts: [room] int64, where pieces begin, unit after unit.
        piece_ends: [room] int64, where they end; where there is more room than pieces, where they begin.
        owners: [room] int64, the units of the pieces; M where there is none.
    """

    order: Tensor
    units: Tensor
    rows: Tensor
    starts: Tensor
    ends: Tensor
    piece_starts: Tensor
    piece_ends: Tensor
    owners: Tensor


def runs(ids: Tensor, offsets: Tensor, units: int) -> Runs:
    """Sort entries by unit, stably, and cut long runs into pieces; nothing here waits for a GPU.

    Ids that are out of range belong to no unit.
    """
    device = ids.device
    # Torch sorts integers by radix.
    keys, order = torch.where((ids >= 0) & (ids < units), ids, units).sort(stable=True)
    bounds = torch.searchsorted(keys, torch.arange(units + 1, device=device, dtype=keys.dtype))
    rows = rows_of(ids, offsets)[order]

    starts, lengths = bounds[:-1], bounds.diff()
    long = lengths > PIECE
    pieces = torch.where(long, (lengths + PIECE - 1) // PIECE, 0)
    after = pieces.cumsum(0)
    # A unit with n entries, more than a piece, has less than 2 n / PIECE of them.
    number = torch.arange(2 * (ids.numel() // PIECE), device=device)
    owners = torch.searchsorted(after, number, right=True)
    at = owners.clamp(max=max(units - 1, 0))
    piece_starts = starts[at] + (number - (after - pieces)[at]) * PIECE
    piece_ends = torch.minimum(piece_starts + PIECE, bounds[1:][at])
    there = owners < units
    return Runs(
        order,
        keys,
        rows,
        starts,
        torch.where(long, starts, bounds[1:]),
        torch.where(there, piece_starts, 0),
        torch.where(there, piece_ends, 0),
        owners,
    )


def rows_of(ids: Tensor, offsets: Tensor) -> Tensor:
    """Return the row of each entry, [nnz], in the dtype of the ids."""
    rows = torch.arange(len(offsets) - 1, device=ids.device, dtype=ids.dtype)
    return rows.repeat_interleave(offsets.diff(), output_size=ids.numel())


def add_pieces(out: Tensor, pieces: Tensor, owners: Tensor) -> None:
    """Add the sums of pieces to the rows of their units, those of one unit in their order.

    Args:
        out: [M, d], in which these rows are 0.
        pieces: [room, d] in the dtype that sums are kept in; rows of no unit are 0.
        owners: As of `Runs`.
    """
    new = torch.ones_like(owners, dtype=torch.bool)
    new[1:] = owners[1:] != owners[:-1]
    segment = new.cumsum(0) - 1
    # Accumulating by `index_put_` sorts first, on a GPU: the order is always the same.
    totals = torch.zeros_like(pieces).index_put_((segment,), pieces, accumulate=True)
    into = torch.full_like(owners, len(out)).index_put_((segment,), owners)
    out.index_put_((into.masked_fill(into == len(out), 0),), totals.to(out.dtype), accumulate=True)
