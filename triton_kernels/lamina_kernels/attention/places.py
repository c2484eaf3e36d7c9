"""Who stands where, and who sees whom by that."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lamina_kernels.attention.problem import Problem


class Places(NamedTuple):
    """Where rows stand in their sequences.

    Attributes:
        queries: [Nq] int64: the key that query i stands at, i + shift, which may be none.
        keys: [Nk] int64: the number of the key in its sequence.
        first_keys: [Nq] int64: the row of key 0 of the query's sequence.
        lengths: [Nq] int64: how many keys the query's sequence has.
        query_sequences: [Nq] int64: the number of the sequence.
        key_sequences: [Nk] int64, likewise.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    first_keys: torch.Tensor
    lengths: torch.Tensor
    query_sequences: torch.Tensor
    key_sequences: torch.Tensor


def places(p: Problem) -> Places:
    """Return where the rows of a problem stand, packed or not."""
    Nq, Nk, device = p.q.shape[2], p.k.shape[2], p.q.device
    if p.cu_seqlens_q is None or p.cu_seqlens_k is None:
        starts_q, starts_k = (torch.tensor([0, n], device=device) for n in (Nq, Nk))
    else:
        starts_q, starts_k = p.cu_seqlens_q.long(), p.cu_seqlens_k.long()
    i, j = torch.arange(Nq, device=device), torch.arange(Nk, device=device)
    # The last sequence that starts at or before a row: sequences without rows start there too, and are skipped.
    of_query, of_key = (torch.searchsorted(s[1:], rows, right=True) for s, rows in ((starts_q, i), (starts_k, j)))
    lengths = starts_k.diff()[of_query]
    shift = lengths - starts_q.diff()[of_query] if p.bottom_right else 0
    return Places(
        queries=i - starts_q[of_query] + shift,
        keys=j - starts_k[of_key],
        first_keys=starts_k[of_query],
        lengths=lengths,
        query_sequences=of_query,
        key_sequences=of_key,
    )


def in_window(p: Problem, d: torch.Tensor) -> torch.Tensor:
    """Return whether a query sees a key that lies d = i + shift - j before it, by causality and window alone."""
    seen = torch.ones_like(d, dtype=torch.bool)
    if p.causal:
        seen &= d >= 0
    if p.left >= 0:
        seen &= d <= p.left
    if p.right >= 0:
        seen &= d >= -p.right
    return seen


def distance_bias(p: Problem, d: torch.Tensor) -> torch.Tensor | None:
    """Return b of d = i + shift - j, [1 or B, 1 or H, Nq, keys] int64, as [1 or B, H, Nq, keys], or None for 0."""
    if p.slopes is not None:
        return -p.slopes[:, None, None] * d.abs()
    if p.table is not None:
        reach = p.table.shape[1] // 2
        heads = torch.arange(len(p.table), device=d.device)[:, None, None]
        return p.table[heads, d.clamp(-reach, reach) + reach]
    return None
