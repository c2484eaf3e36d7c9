"""How the Triton kernels of the second pass are launched."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import operands, tiling
from lamina_kernels.attention.descriptors import described
from lamina_kernels.attention.gradients import NO_KEY
from lamina_kernels.attention.launch import Launch, fitted, power_of_2, run, sequences
from lamina_kernels.attention.mass import above_kernel, received_kernel
from lamina_kernels.attention.problem import MASS_BLOCK, Masses, Problem, Wanted
from lamina_kernels.tiles.rows import ceil_div


def mass(problem: Problem, lse: torch.Tensor | None, wanted: Wanted) -> Masses:
    """Return what the second pass is asked for, from a launch by key and one by query.

    Blocks of packed sequences, which begin anywhere in a tile, are refused by the face (`support.PACKED_BLOCKS`).
    """
    target = dispatch.target(problem.q)
    shared = arguments(problem, lse, target)
    received = blocks = above = None
    if wanted.received or wanted.blocks:
        launch = received_plan(problem, shared, wanted, target)
        run(received_kernel, launch, problem.q)
        received, tiles = launch.arguments["received"], launch.arguments["tiles"]
        if tiles is not None:
            blocks = _pooled(tiles, MASS_BLOCK // launch.arguments["ROWS"], MASS_BLOCK // launch.arguments["COLUMNS"])
    if wanted.share is not None:
        launch = above_plan(problem, shared, wanted.share, target)
        run(above_kernel, launch, problem.q)
        above = launch.arguments["above"]
    return Masses(received, blocks, above)


def arguments(problem: Problem, lse: torch.Tensor | None, target: str) -> dict[str, Any]:
    """Return the arguments that both kernels take."""
    shared = operands.arguments(problem, operands.products(problem, target))
    if shared.pop("PLAIN"):
        shared["scale"] *= operands.LOG2E
    for name in ("v", "v_batch", "v_head", "v_row", "value_width"):
        del shared[name]
    return {
        **shared,
        "lse": None if lse is None else lse.masked_fill(lse == -torch.inf, NO_KEY).mul(operands.LOG2E).contiguous(),
        "SIGMOID": lse is None,
        "WIDTH": power_of_2(problem.q.shape[3]),
    }


def received_plan(problem: Problem, shared: dict[str, Any], wanted: Wanted, target: str) -> Launch:
    """Choose tiles and grid of what keys receive, and allocate it."""
    tiles = fitted(tiling.received(target, shared["PRECISION"], shared["WIDTH"]), problem)
    blocks, (batches, heads, queries) = ceil_div(problem.max_seqlen_k, tiles.columns), problem.q.shape[:3]
    made = {
        "received": problem.q.new_empty(batches, heads, problem.k.shape[2], dtype=torch.float32),
        # A tile that is never visited is seen by nobody.
        "tiles": problem.q.new_zeros(batches, heads, ceil_div(queries, tiles.rows), blocks, dtype=torch.float32),
    }
    return _plan(
        problem,
        shared | {name: tensor if asked else None for (name, tensor), asked in zip(made.items(), wanted, strict=False)},
        "key", tiles, blocks, target,
    )  # fmt: skip


def above_plan(problem: Problem, shared: dict[str, Any], share: float, target: str) -> Launch:
    """Choose tiles and grid of the number of keys above a share, and allocate it."""
    tiles = fitted(tiling.received(target, shared["PRECISION"], shared["WIDTH"]), problem)
    above = problem.q.new_empty(problem.q.shape[:3], dtype=torch.int64)
    blocks = ceil_div(problem.max_seqlen_q, tiles.rows)
    return _plan(problem, shared | {"share": share, "above": above}, "query", tiles, blocks, target)


def _plan(
    problem: Problem, shared: dict[str, Any], side: str, tiles: tiling.Tiling, blocks: int, target: str
) -> Launch:
    width = shared["WIDTH"]
    made = {
        **shared,
        **operands.mask_arguments(problem, side),
        **described(shared, {"q": (tiles.rows, width), "k": (tiles.columns, width)}, target),
        "blocks": blocks,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * problem.q.shape[1] * sequences(problem),), made, options)


def _pooled(tiles: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Add tiles up to blocks of `rows` by `columns` tiles; the last ones may be shorter."""
    padded = torch.nn.functional.pad(tiles, (0, -tiles.shape[3] % columns, 0, -tiles.shape[2] % rows))
    return padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows)).sum((3, 5))
