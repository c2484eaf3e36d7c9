"""Sequences of several lengths, one behind the other."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch


class Packing(NamedTuple):
    """Where sequences start, [S + 1] int32 or None for sequences of one length, and how long the longest are."""

    starts_q: torch.Tensor | None
    starts_k: torch.Tensor | None
    longest_q: int
    longest_k: int


def packing(
    op: str,
    q: torch.Tensor,
    k: torch.Tensor,
    cu_seqlens_q: torch.Tensor | None,
    cu_seqlens_k: torch.Tensor | None,
    max_seqlen_q: int | None,
    max_seqlen_k: int | None,
) -> Packing | None:
    """Check where packed sequences start; None if nothing is packed.

    Values are looked at, which waits for a GPU, unless torch.compile or a CUDA graph records the call; both have to
    know the lengths of the longest sequences.
    """
    if cu_seqlens_q is None and cu_seqlens_k is None:
        for name, longest in (("max_seqlen_q", max_seqlen_q), ("max_seqlen_k", max_seqlen_k)):
            if longest is not None:
                raise ValueError(f"{op}: {name} is given without cu_seqlens_q and cu_seqlens_k")
        return None
    if cu_seqlens_q is None or cu_seqlens_k is None:
        given, missing = ("cu_seqlens_q", "cu_seqlens_k") if cu_seqlens_k is None else ("cu_seqlens_k", "cu_seqlens_q")
        raise ValueError(f"{op}: {given} is given without {missing}; give both")
    longest_q = _checked(op, "q", cu_seqlens_q, max_seqlen_q, q)
    longest_k = _checked(op, "k", cu_seqlens_k, max_seqlen_k, k)
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError(
            f"{op}: cu_seqlens_q tells of {len(cu_seqlens_q) - 1} sequences and cu_seqlens_k of "
            f"{len(cu_seqlens_k) - 1}, they must be equally many"
        )
    return Packing(cu_seqlens_q, cu_seqlens_k, longest_q, longest_k)


def _checked(op: str, side: str, starts: torch.Tensor, longest: int | None, rows: torch.Tensor) -> int:
    """Return the length of the longest sequence."""
    name = f"cu_seqlens_{side}"
    if starts.dtype != torch.int32 or starts.ndim != 1 or len(starts) < 2:
        raise ValueError(
            f"{op}: {name} is {starts.dtype} of shape {list(starts.shape)}, expected int32 [sequences + 1]"
        )
    if starts.device != rows.device:
        raise ValueError(f"{op}: {name} is on {starts.device}, but {side} is on {rows.device}")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 0):
        raise ValueError(f"{op}: max_seqlen_{side} is {longest!r}, expected the length of the longest sequence")
    if not _readable(starts):
        if longest is None:
            raise ValueError(f"{op}: max_seqlen_{side} is missing; a call that is recorded cannot look into {name}")
        return longest
    values = starts.tolist()
    sizes = [after - before for before, after in pairwise(values)]
    if values[0] != 0 or values[-1] != len(rows):
        raise ValueError(
            f"{op}: {name} goes from {values[0]} to {values[-1]}, expected from 0 to {len(rows)}, all of {side}"
        )
    if min(sizes) < 0:
        at = sizes.index(min(sizes))
        raise ValueError(
            f"{op}: {name} falls from {values[at]} to {values[at + 1]} at {at + 1}, expected rising numbers"
        )
    if longest is not None and longest < max(sizes):
        raise ValueError(f"{op}: max_seqlen_{side} is {longest}, but {name} tells of a sequence of {max(sizes)}")
    return max(sizes) if longest is None else longest


def _readable(starts: torch.Tensor) -> bool:
    """Return whether values may be looked at now."""
    if torch.compiler.is_compiling():
        return False
    return not (starts.is_cuda and torch.cuda.is_current_stream_capturing())
