"""Cutting rows into tiles, in plain torch."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums inside a tile are kept in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def tiles(rows: int, block: int) -> Iterator[slice]:
    """Cut `rows` rows into consecutive slices of `block`; the last may be shorter."""
    return (slice(start, min(start + block, rows)) for start in range(0, rows, block))


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up: the number of tiles of b rows that cover a rows."""
    return -(-a // b)
