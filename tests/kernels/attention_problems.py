"""Problems of attention that between them ask for everything a form can be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lamina_kernels.attention.masking import block_mask
from lamina_kernels.attention.problem import Problem


def problem(
    heads: int = 2,
    key_heads: int = 2,
    queries: int = 70,
    keys: int = 70,
    *,
    batch: int = 2,
    dim: int = 8,
    values: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    factors: bool = False,
    slopes: bool = False,
    table: bool = False,
    hidden_keys: bool = False,
    mask: str | None = None,
    lengths: tuple[list[int], list[int]] | None = None,
    columns: int = 0,
    **options: Any,
) -> Problem:
    """Draw a problem; heads are sharp and flat."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        drawn = torch.randn(*shape, generator=generator, dtype=torch.float64, device="cpu")
        return drawn.to(torch.get_default_device())

    number = torch.float64 if dtype == torch.float64 else torch.float32
    if lengths is not None:
        batch, queries, keys = 1, sum(lengths[0]), sum(lengths[1])
    # The usual layout: heads inside of positions.
    q = draw(batch, queries, heads, dim).transpose(1, 2) * torch.logspace(-0.5, 0.5, heads)[:, None, None]
    k, v = (draw(batch, keys, key_heads, width).transpose(1, 2) for width in (dim, values))
    p = Problem(*(x.to(dtype) for x in (q, k, v)), scale=dim**-0.5, max_seqlen_q=queries, max_seqlen_k=keys)
    if lengths is not None:
        starts = [torch.tensor([0, *n], dtype=torch.int32).cumsum(0, dtype=torch.int32) for n in lengths]
        p = replace(p, cu_seqlens_q=starts[0], cu_seqlens_k=starts[1])
        p = replace(p, max_seqlen_q=max(lengths[0]), max_seqlen_k=max(lengths[1]))
    if factors:
        p = replace(
            p,
            query_scale=draw(batch, heads, queries).exp().to(number),
            key_scale=draw(batch, heads, keys).exp().to(number),
            query_bias=draw(batch, heads, queries).to(number),
            key_bias=draw(batch, 1, keys).to(number).expand(-1, heads, -1),
        )
    if hidden_keys:
        bias = draw(batch, heads, keys).to(number)
        bias[:, :, ::3] = -torch.inf
        bias[0, 0] = -torch.inf
        p = replace(p, key_bias=bias)
    if slopes:
        p = replace(p, slopes=draw(heads).abs().to(number))
    if table:
        p = replace(p, table=draw(heads, 2 * 20 + 1).to(number))
    if mask is not None:
        p = replace(p, mask=_masks[mask](batch, heads, queries, keys))
    if columns:
        p = replace(p, columns=draw(batch, heads, keys, columns).float())
    return replace(p, **options)


def _local(batch: int, heads: int, queries: int, keys: int):
    """Blocks of all three kinds, and queries that see nothing."""
    return block_mask(lambda b, h, i, j: ((i - j).abs() < 70) & (i != 5) | (j < 64), queries, keys, block=64)


def _by_head(batch: int, heads: int, queries: int, keys: int):
    def seen(b: torch.Tensor, h: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return ((i // 64 + j // 64 + h + b) % 3 != 0) & ((i + j) % 7 != 0)

    return block_mask(seen, queries, keys, sequences=batch, heads=heads, block=64)


def _by_sequence(batch: int, heads: int, queries: int, keys: int):
    return block_mask(lambda b, h, i, j: j < 64 * (b + 1), queries, keys, sequences=batch, block=64)


_masks = {"local": _local, "by head": _by_head, "by sequence": _by_sequence}

EVERY: dict[str, Any] = {"tier": 3, "topk": 3, "columns": 2}

PROBLEMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"causal": True, "values": 5},
    "groups, more keys": {"heads": 6, "key_heads": 2, "keys": 101, "causal": True},
    "top left": {"causal": True, "bottom_right": False, "queries": 40},
    "fewer keys": {"causal": True, "keys": 30},
    "window": {"left": 11, "right": 3},
    "causal window": {"causal": True, "left": 25, "heads": 4},
    "one query": {"queries": 1, "keys": 133, "heads": 4, "key_heads": 1},
    "one key": {"queries": 37, "keys": 1},
    "factors": {"factors": True, "heads": 4, "causal": True},
    "hidden keys": {"hidden_keys": True},
    "cap and slopes": {"softcap": 2.0, "slopes": True, "heads": 4},
    "cap and table": {"softcap": 2.0, "table": True, "causal": True, "heads": 4},
    "packed": {"lengths": ([9, 0, 33, 5], [9, 4, 20, 31]), "causal": True, "heads": 4},
    "packed, all": {"lengths": ([9, 33, 0], [9, 20, 8]), "slopes": True},
    "mask": {"mask": "local", "queries": 200, "keys": 200, "heads": 4},
    "mask, causal": {"mask": "local", "queries": 130, "keys": 200, "causal": True, "left": 90},
    "mask by head": {"mask": "by head", "queries": 130, "keys": 140, "heads": 4},
    "mask by sequence": {"mask": "by sequence", "queries": 130, "keys": 140, "heads": 4, "batch": 3},
    "sigmoid": {"sigmoid": True, "causal": True, "factors": True},
    "sigmoid mask": {"sigmoid": True, "mask": "local", "queries": 130, "keys": 140},
}
