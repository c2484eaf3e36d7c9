"""How the Triton kernel of `hsic_sums` is launched: operands, tiles, grid."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.paired.forward import hsic_sums_kernel
from lamina_kernels.gram.paired.groups import by_group
from lamina_kernels.gram.paired.operands import Operands, prepare
from lamina_kernels.gram.paired.problem import SUMS, Problem
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import accurate

# Programs that keep the largest GPUs busy. It is the same number everywhere: the sums do not depend on the GPU.
PROGRAMS = 1024


def hsic_sums(problem: Problem) -> torch.Tensor:
    """Return the five sums, float64 [5, n, n_groups], from one launch."""
    if problem.n == 0 or problem.n_groups == 0:
        return problem.zeros()
    launch = plan(problem, dispatch.target(problem.x))
    run(hsic_sums_kernel, launch, problem.x)
    sums = launch.arguments["sums"]
    return sums[0] if len(sums) == 1 else sums.sum(0)


def plan(problem: Problem, target: str) -> Launch:
    """Put the operands into order, choose tiles and grid for a target, and allocate the sums."""
    order, bounds, longest = None, None, problem.m
    if problem.groups is not None:
        order, _, bounds = by_group(problem.groups, problem.n_groups)
        longest = int(bounds.diff().max())
    precision = problem.precision or accurate(target)
    x = _sorted_operands(problem, "x", order, precision)
    y = _sorted_operands(problem, "y", order, precision)
    products = precision if problem.x.dtype == torch.float32 else "half"
    tiles = tiling.scores(target, products, ceil_div(problem.m, problem.n_groups))
    blocks = ceil_div(problem.n, tiles.rows)
    splits = min(ceil_div(PROGRAMS, blocks * problem.n_groups), ceil_div(longest, tiles.columns))
    splits = max(splits, 1)
    arguments = {
        **_side("x", x, tiles),
        **_side("y", y, tiles),
        "bounds": bounds,
        "order": order if problem.diagonal else None,
        "sums": problem.x.new_empty(splits, SUMS, problem.n, problem.n_groups, dtype=torch.float64),
        "n": problem.n,
        "m": problem.m,
        "groups": problem.n_groups,
        "splits": splits,
        "PRECISION": products,
        "DIAGONAL": problem.diagonal,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * splits * problem.n_groups,), arguments, options)


def _sorted_operands(problem: Problem, name: str, order: torch.Tensor | None, precision: str) -> Operands:
    """Return the operands of one kernel function, with the rows that are summed over in the order of their groups."""
    kernel, rows, others = (getattr(problem, part) for part in (f"kernel_{name}", name, f"{name}_other"))
    if order is not None:
        others = others[order]
    # The diagonal is where a row has the same place on both sides.
    return prepare(kernel, others if problem.diagonal else rows, others, precision)


def _side(name: str, operands: Operands, tiles: Tiling) -> dict[str, Any]:
    """Return the kernel's arguments for one kernel function."""
    width = operands.rows.shape[1]
    whole = width <= tiles.whole
    return {
        name: operands.rows,
        f"{name}_other": operands.others,
        f"{name}_bias": operands.bias,
        f"{name}_other_bias": operands.others_bias,
        f"d{name}": width,
        f"{name}_stride": operands.rows.stride(0),
        f"{name}_other_stride": operands.others.stride(0),
        f"{name}_scale": operands.scale,
        f"KERNEL_{name.upper()}": operands.kernel,
        # A matrix instruction takes at least 16 columns.
        f"CHUNK_{name.upper()}": max(16, 1 << (width - 1).bit_length()) if whole else tiles.width,
        f"WHOLE_{name.upper()}": whole,
    }
