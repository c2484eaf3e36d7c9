"""The obvious form: every entry times its atom, added to its row in float64, differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.sparse.decoding.entries import Entries, demand_atoms


def decode(e: Entries, dictionary: Tensor, bias: Tensor | None) -> Tensor:
    """Return bias + the sum of values times atoms of each list, [n, L, d] float64, of a dictionary [L, M, d]."""
    demand_atoms(e.ids, dictionary.shape[1])
    atoms = dictionary.double()[:, e.ids.long()].transpose(0, 1)
    counts = e.offsets.diff()
    rows = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    out = atoms.new_zeros(len(counts), *atoms.shape[1:]).index_add(0, rows, e.values.double()[:, None, None] * atoms)
    return out if bias is None else out + bias.double()
