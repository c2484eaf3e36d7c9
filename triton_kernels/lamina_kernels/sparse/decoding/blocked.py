"""Sums and products of gathered rows in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding.entries import demand_atoms
from lamina_kernels.sparse.decoding.units import Runs, add_pieces, rows_of
from lamina_kernels.tiles.rows import accumulation_dtype, tiles

NUMBERS = 2**20
"""Numbers of a piece of gathered rows."""

# What torch's autograd itself calls for the weights of `embedding_bag`: it multiplies rows where they stand. Its name
# is torch's own affair: where it is gone, rows are copied.
_OF_WEIGHTS = getattr(torch.ops.aten, "_embedding_bag_per_sample_weights_backward", None)


def sums(values: Tensor, ids: Tensor, offsets: Tensor, table: Tensor, bias: Tensor | None) -> Tensor:
    """Return bias + the sum of value_e table[id_e] over the entries of each list, [lists, d].

    Args:
        values: [nnz], in the dtype of the table.
        ids: [nnz].
        offsets: [lists + 1] int64.
        table: [M, d].
        bias: [d].
    """
    if ids.is_cuda:
        known = (ids >= 0) & (ids < len(table))
        values, ids = torch.where(known, values, torch.nan), torch.where(known, ids, 0)
    # It gathers and adds without a copy of what it gathers, in float32 also for half precision.
    try:
        out, *_ = torch.embedding_bag(
            table.contiguous(), ids, offsets.to(ids.dtype), per_sample_weights=values, include_last_offset=True
        )
    except RuntimeError:
        # What gathers has looked at the ids: a look of our own beforehand would take a hundredth of the time.
        demand_atoms(ids, len(table))
        raise
    return out if bias is None else out.add_(bias)


def products(g: Tensor, ids: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    """Return <g_i, table[id_e]> of each entry e of list i, [nnz], in the dtype that sums are kept in.

    Args:
        g: [lists, d], in the dtype of the table.
        ids: [nnz].
        offsets: [lists + 1] int64.
        table: [M, d].
    """
    known = (ids >= 0) & (ids < len(table)) if ids.is_cuda else None
    ids = ids if known is None else torch.where(known, ids, 0)
    lists = rows_of(ids, offsets)
    if _OF_WEIGHTS is None:
        found = _gathered(g, ids, lists, table)
    else:
        found = _OF_WEIGHTS(g.contiguous(), table.contiguous(), ids, offsets[:-1].to(ids.dtype), lists, 0)
        found = found.to(accumulation_dtype(table.dtype))
    return found if known is None else found.masked_fill_(~known, torch.nan)


def _gathered(g: Tensor, ids: Tensor, lists: Tensor, table: Tensor) -> Tensor:
    """Return <g_i, table[id_e]> of each entry e of list i from copies of both, a piece of the entries at a time."""
    dtype = accumulation_dtype(table.dtype)
    found = torch.empty(len(ids), dtype=dtype, device=table.device)
    for piece in tiles(len(ids), max(1, NUMBERS // max(1, table.shape[1]))):
        rows = table.index_select(0, ids[piece]).to(dtype)
        found[piece] = rows.mul_(g.index_select(0, lists[piece])).sum(1)
    return found


def by_unit(values: Tensor, r: Runs, layers: Sequence[Tensor]) -> list[Tensor]:
    """Return the sum of value_e g[row_e] over the entries of each unit, [M, d], for each g [n, d].

    Args:
        values: [nnz], in the order of the rows.
        r: The entries by unit.
        layers: Rows, in the dtype of the values.
    """
    values = values[r.order]
    lengths = r.ends - r.starts
    pieces = r.piece_ends - r.piece_starts
    if not bool(pieces.any()):
        return [sums(values, r.rows, _offsets(lengths), g, None) for g in layers]
    whole = torch.cat([lengths > 0, lengths.new_zeros(1).bool()])[r.units]
    found = []
    for g in layers:
        out = sums(values[whole], r.rows[whole], _offsets(lengths), g, None)
        dtype = accumulation_dtype(g.dtype)
        parts = sums(values[~whole].to(dtype), r.rows[~whole], _offsets(pieces), g.to(dtype), None)
        add_pieces(out, parts, r.owners)
        found.append(out)
    return found


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
