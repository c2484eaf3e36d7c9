"""How the Triton kernels of attention are launched: operands, tiles, grid."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import operands, tiling
from lamina_kernels.attention.descriptors import described
from lamina_kernels.attention.forward import attention_forward_kernel
from lamina_kernels.attention.parts import together, top_of_parts
from lamina_kernels.attention.problem import Problem, Sums
from lamina_kernels.attention.tiling import Tiling
from lamina_kernels.attention.top import attention_top_kernel
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div

# Programs that keep the largest GPUs busy. It is the same number everywhere: the sums do not depend on the GPU.
PROGRAMS = 128
# Keys that are worth a program of their own.
KEYS = 512

# lse, max, entropy, expected score, sum p², and mean and variance of the distance and of its absolute value.
PLANES = (2, 4, 9, 9)


def sequences(problem: Problem) -> int:
    """Return how many sequences there are, packed or not."""
    return problem.q.shape[0] if problem.cu_seqlens_q is None else len(problem.cu_seqlens_q) - 1


def power_of_2(width: int) -> int:
    """Return the width of a tile: a matrix instruction takes at least 16 columns; 0 for 0."""
    return max(16, 1 << (width - 1).bit_length()) if width else 0


def fitted(tiles: Tiling, problem: Problem) -> Tiling:
    """Return tiles that lie inside the blocks of a mask."""
    if problem.mask is None:
        return tiles
    block = problem.mask.block
    return tiles._replace(rows=min(tiles.rows, block), columns=min(tiles.columns, block))


def forward_plan(problem: Problem, target: str) -> Launch:
    """Choose tiles, parts and grid of the forward pass for a target, and allocate what it writes."""
    products = operands.products(problem, target)
    width, value_width = power_of_2(problem.q.shape[3]), power_of_2(problem.v.shape[3])
    columns = problem.columns if problem.tier >= 3 else None
    tier = min(problem.tier, 2) if columns is None else 3
    bare = operands.is_plain(problem) and problem.mask is None
    tiles = fitted(tiling.forward(target, products, max(width, value_width), tier, bare), problem)
    shared, programs = _shared(problem, products, tiles)
    written = (shared["splits"], *problem.q.shape[:3])
    new = problem.q.new_empty
    # The interpreter cuts digits off where it makes bfloat16.
    whole = shared["splits"] > 1 or (target == "interpreter" and problem.v.dtype == torch.bfloat16)
    by_tile = {"q": (tiles.rows, width), "k": (tiles.columns, width)}
    if value_width:
        by_tile["v"] = (tiles.columns, value_width)
    arguments = {
        **shared,
        **operands.column_arguments(columns),
        "out": new(*written, problem.v.shape[3], dtype=torch.float32 if whole else problem.v.dtype),
        "statistics": new(PLANES[tier], *written, dtype=torch.float32),
        "argmax": new(written, dtype=torch.int64) if tier >= 2 else None,
        "column_sums": None if columns is None else new(*written, columns.shape[3], dtype=torch.float32),
        "TIER": tier,
        "SIGMOID": problem.sigmoid,
        # Keys behind their query alone.
        "ONE_SIDED": shared["RIGHT"] and shared["right"] == 0,
        **described(shared, by_tile, target),
        "WIDTH": width,
        "VALUE_WIDTH": value_width,
        "COLUMN_COUNT": 16,
        "PARTS": tiling.parts(target),
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((programs,), _only(attention_forward_kernel, arguments), options)


def top_plan(problem: Problem, target: str) -> Launch:
    """Choose tiles, parts and grid of the search for the largest scores, and allocate what it writes."""
    products = operands.products(problem, target)
    width = power_of_2(problem.q.shape[3])
    tiles = fitted(tiling.top(target, products), problem)
    shared, programs = _shared(problem, products, tiles)
    written = (shared["splits"], *problem.q.shape[:3], problem.topk)
    arguments = {
        **shared,
        "top_scores": problem.q.new_empty(written, dtype=torch.float32),
        "top_keys": problem.q.new_empty(written, dtype=torch.int64),
        "topk": problem.topk,
        **described(shared, {"q": (tiles.rows, width), "k": (tiles.columns, width)}, target),
        "WIDTH": width,
        "TOP": 1 << (problem.topk - 1).bit_length(),
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((programs,), _only(attention_top_kernel, arguments), options)


def forward(problem: Problem) -> Sums:
    """Return output and statistics, from one launch, and one for top scores; of few queries, from merged parts."""
    target = dispatch.target(problem.q)
    launch = forward_plan(problem, target)
    run(attention_forward_kernel, launch, problem.q)
    made = launch.arguments
    parts = [_sums(problem, made, split) for split in range(made["splits"])]
    sums = parts[0] if len(parts) == 1 else together(parts)
    if problem.topk:
        launch = top_plan(problem, target)
        run(attention_top_kernel, launch, problem.q)
        scores, keys = top_of_parts(launch.arguments["top_scores"], launch.arguments["top_keys"])
        sums = sums._replace(top_scores=scores, top_keys=keys)
    return sums._replace(out=sums.out.to(problem.v.dtype))


def _shared(problem: Problem, products: str, tiles: Tiling) -> tuple[dict[str, Any], int]:
    """Return the arguments of kernels that visit the keys of a block of queries, and how many programs run."""
    blocks = ceil_div(problem.max_seqlen_q, tiles.rows)
    programs = blocks * sequences(problem) * problem.q.shape[1]
    splits = max(1, min(PROGRAMS // max(programs, 1), problem.max_seqlen_k // KEYS))
    arguments = {
        # Sums hold scores in nats.
        **operands.arguments(problem, products, 1.0),
        **operands.mask_arguments(problem, "query"),
        "blocks": blocks,
        "splits": splits,
        "plane": problem.q.shape[0] * problem.q.shape[1] * problem.q.shape[2],
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    return arguments, programs * splits


def _only(kernel: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that a kernel takes."""
    return {name: arguments[name] for name in kernel.arg_names}


def _sums(problem: Problem, made: dict[str, Any], split: int) -> Sums:
    """Name what one part of the keys left."""
    planes = made["statistics"][:, split]
    softmax = not problem.sigmoid
    one = problem.tier >= 1 and softmax
    two = problem.tier >= 2
    return Sums(
        out=made["out"][split],
        lse=planes[0] if softmax else None,
        max=planes[1],
        entropy=planes[2] if one else None,
        expected_score=planes[3] if one else None,
        argmax=made["argmax"][split] if two else None,
        sum_p2=planes[4] if two else None,
        distance=planes[5:9] if two and softmax else None,
        columns=None if made["column_sums"] is None else made["column_sums"][split],
    )
