"""A problem as the Triton kernels take it: pointers, strides and numbers that all of them share."""

from __future__ import annotations

import math
from typing import Any

import torch

from lamina_kernels.attention.problem import Problem
from lamina_kernels.tiles.rounding import round_to_tf32
from lamina_kernels.tiles.target import kind

LOG2E = math.log2(math.e)


def arguments(problem: Problem, products: str, nat: float = LOG2E) -> dict[str, Any]:
    """Return the arguments that every kernel of attention takes, by name.

    Factors and terms come multiplied with `unit(problem, nat)`. A score without factors, terms and cap is PLAIN:
    kernels then keep the bare product, and `scale` is that of the problem.

    Args:
        problem: The problem.
        nat: What `score.scores` returns for a score of 1: LOG2E where 2 is raised to it, 1 where it is summed.
        products: How rows are multiplied: "half", or the precision of float32. Rows for "tf32" are rounded here; a
            tensor core would cut digits off.
    """
    rows = {name: _rows(getattr(problem, name), products) for name in ("q", "k", "v")}
    plain = is_plain(problem)
    scale = problem.scale if plain else problem.scale * unit(problem, nat)
    right = 0 if problem.causal else problem.right
    of_keys = {
        "key_scale": _of_keys(problem.key_scale, 1.0),
        "key_bias": _of_keys(problem.key_bias, unit(problem, nat)),
    }
    return {
        **rows,
        **of_keys,
        "query_scale": _of_queries(problem.query_scale, scale),
        "query_bias": _of_queries(problem.query_bias, unit(problem, nat)),
        "slopes": None if problem.slopes is None else problem.slopes.float() * nat,
        "table": None if problem.table is None else (problem.table.float() * nat).contiguous(),
        "cu_seqlens_q": problem.cu_seqlens_q,
        "cu_seqlens_k": problem.cu_seqlens_k,
        **{f"{name}_{axis}": stride for name in rows for axis, stride in _strides(rows[name])},
        **{f"{name}_{axis}": stride for name, values in of_keys.items() for axis, stride in _strides(values)[:2]},
        "heads": problem.q.shape[1],
        "group": problem.q.shape[1] // problem.k.shape[1],
        "queries": problem.q.shape[2],
        "keys": problem.k.shape[2],
        "width": problem.q.shape[3],
        "value_width": problem.v.shape[3],
        "scale": scale,
        "cap": 0.0 if problem.softcap is None else problem.softcap * nat,
        "radius": 0 if problem.table is None else problem.table.shape[1] // 2,
        "left": min(problem.left, problem.k.shape[2] + problem.q.shape[2]),
        "right": min(right, problem.k.shape[2] + problem.q.shape[2]),
        "PLAIN": plain,
        "CAPPED": problem.softcap is not None,
        "LEFT": problem.left >= 0,
        "RIGHT": right >= 0,
        "BOTTOM_RIGHT": problem.bottom_right,
        "PRECISION": products,
    }


def mask_arguments(problem: Problem, side: str) -> dict[str, Any]:
    """Return the arguments that say which blocks are visited.

    Args:
        problem: The problem.
        side: "query" where a program visits the blocks of keys that a block of queries sees, "key" where it visits
            the blocks of queries that see a block of keys.
    """
    mask = problem.mask
    if mask is None:
        return {
            "mask_starts": None, "mask_blocks": None, "mask_partial": None, "mask_bits": None,
            "mask_batch": 0, "mask_head": 0, "BLOCK": 0,
        }  # fmt: skip
    starts, blocks, partial = (
        (mask.starts, mask.blocks, mask.partial)
        if side == "query"
        else (mask.key_starts, mask.key_blocks, mask.key_partial)
    )
    starts = starts.contiguous()
    return {
        "mask_starts": starts,
        "mask_blocks": blocks,
        "mask_partial": partial,
        "mask_bits": mask.bits,
        "mask_batch": starts.stride(0) if starts.shape[0] > 1 else 0,
        "mask_head": starts.stride(1) if starts.shape[1] > 1 else 0,
        "BLOCK": mask.block,
    }


def column_arguments(columns: torch.Tensor | None) -> dict[str, Any]:
    """Return the arguments for functions of the key, which sequences and heads may share."""
    if columns is None:
        strides, count = [0, 0, 0], 0
    else:
        columns = _rows(columns, "ieee")
        strides = [stride if length > 1 else 0 for length, stride in zip(columns.shape, columns.stride(), strict=True)]
        count = columns.shape[3]
    steps = {f"columns_{axis}": stride for axis, stride in zip(("batch", "head", "row"), strides, strict=False)}
    return {"columns": columns, **steps, "column_count": count}


def unit(problem: Problem, nat: float = LOG2E) -> float:
    """Return what factors and terms are multiplied with: kernels take the cap of s / softcap, or what is nat s."""
    return nat if problem.softcap is None else 1 / problem.softcap


def is_plain(problem: Problem) -> bool:
    """Return whether a score is the product of its rows times a scale that is neither tiny nor huge nor negative."""
    more = (problem.query_scale, problem.key_scale, problem.query_bias, problem.key_bias, problem.slopes)
    other = any(part is not None for part in (*more, problem.table, problem.softcap))
    return not other and 1e-6 <= problem.scale <= 1e6


def products(problem: Problem, target: str) -> str:
    """Return how a target multiplies the rows: "half", or the precision of float32.

    Matrix units of NVIDIA take bfloat16, those of AMD also float32. On Blackwell, six products of rows wider than 64,
    or beside those of columns, compile to a kernel without a product, for want of tensor memory: there float32 is
    multiplied without matrix units.
    """
    if problem.q.dtype != torch.float32:
        return "half"
    large = max(problem.q.shape[3], problem.v.shape[3]) > 64 or problem.columns is not None
    accurate = "ieee" if target.startswith("hip:") or (kind(target) == "blackwell" and large) else "bf16x6"
    return problem.precision or accurate


def _rows(rows: torch.Tensor, products: str) -> torch.Tensor:
    """Return rows that are contiguous inside."""
    if products == "tf32":
        return round_to_tf32(rows)
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


def _of_queries(values: torch.Tensor | None, factor: float) -> torch.Tensor | None:
    """Return [B, H, Nq] float32 without gaps."""
    return None if values is None else (values.float() * factor).contiguous()


def _of_keys(values: torch.Tensor | None, factor: float) -> torch.Tensor | None:
    """Return [B, H, Nk] float32, contiguous inside; heads that share values go on sharing them."""
    if values is None:
        return None
    shared = values[:, :1] if values.stride(1) == 0 else values
    return (shared.float() * factor).contiguous().expand_as(values)


def _strides(tensor: torch.Tensor | None) -> list[tuple[str, int]]:
    """Return what lies between two batches, two heads, two rows."""
    strides = (0, 0, 0) if tensor is None else tensor.stride()[:3]
    return list(zip(("batch", "head", "row"), strides, strict=False))
