"""How the Triton kernel of `hsic_sums` is launched: operands, tiles, grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.operands import Operands, prepare, products_of
from lamina_kernels.gram.paired.forward import hsic_sums_kernel
from lamina_kernels.gram.paired.groups import by_group
from lamina_kernels.gram.paired.problem import SUMS, Problem
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div

# Programs that keep the largest GPUs busy. It is the same number everywhere: the sums do not depend on the GPU.
PROGRAMS = 1024


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], from one launch."""
    if problem.n == 0 or problem.n_groups == 0:
        return problem.zeros()
    launch = plan(problem, dispatch.target(problem.of_x.x))
    run(hsic_sums_kernel, launch, problem.of_x.x)
    sums = launch.arguments["sums"]
    return sums[0] if len(sums) == 1 else sums.sum(0)


def plan(problem: Problem, target: str) -> Launch:
    """Put the operands into order, choose tiles and grid for a target, and allocate the sums."""
    order, bounds, longest = None, None, problem.m
    if problem.groups is not None:
        order, _, bounds = by_group(problem.groups, problem.n_groups)
        longest = int(bounds.diff().max())
    pairs = [p if order is None else _in_order(p, order, problem.diagonal) for p in problem.pairs]
    x, y = (prepare(p, products_of(p, target)) for p in pairs)
    kinds = [kind for operands in (x, y) for kind, _ in operands.kinds]
    products = x.products if x.products != "half" else y.products
    tiles = tiling.scores(target, products, ceil_div(problem.m, problem.n_groups), kinds)
    blocks = ceil_div(problem.n, tiles.rows)
    splits = min(ceil_div(PROGRAMS, blocks * problem.n_groups), ceil_div(longest, tiles.columns))
    splits = max(splits, 1)
    arguments = {
        **_side("x", pairs[0], x, tiles),
        **_side("y", pairs[1], y, tiles),
        "bounds": bounds,
        "order": order if problem.diagonal else None,
        "sums": pairs[0].x.new_empty(splits, SUMS, problem.n, problem.n_groups, dtype=torch.float64),
        "n": problem.n,
        "m": problem.m,
        "groups": problem.n_groups,
        "splits": splits,
        "DIAGONAL": problem.diagonal,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * splits * problem.n_groups,), arguments, options)


def _in_order(p: Pairs, order: torch.Tensor, diagonal: bool) -> Pairs:
    """Return pairs whose rows that are summed over stand in the order of their groups."""
    y = p.y[order]
    # The diagonal is where a row has the same place on both sides.
    return replace(p, x=y, y=y) if diagonal else replace(p, y=y, same=False)


def _side(name: str, p: Pairs, operands: Operands, tiles: Tiling) -> dict[str, Any]:
    """Return the kernel's arguments for one kernel function."""
    return {
        f"{name}_bases": operands.bases,
        f"{name}_parameters": p.parameters.float().contiguous(),
        f"{name.upper()}_CODE": operands.code,
        f"{name.upper()}_BASES": operands.base_code(tiles.whole, together=tiles.together, chunk=tiles.width),
        f"{name.upper()}_PRECISION": operands.products,
    }
