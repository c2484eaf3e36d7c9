"""How the Triton kernels of the gradients of sums are launched: once for each side and each base."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.operands import Operands, prepare
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import launch
from lamina_kernels.gram.sums.backward import gradients_kernel
from lamina_kernels.gram.sums.backward_norm import norm_gradients_kernel
from lamina_kernels.gram.sums.backward_wide import wide_gradients_kernel
from lamina_kernels.gram.sums.blocked import Found, Weights
from lamina_kernels.gram.sums.launch import Terms
from lamina_kernels.gram.terms import PARAMETERS, leaves
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rounding import round_to_tf32
from lamina_kernels.tiles.target import accurate

WIDE_PROGRAMS = 264
"""Programs of wide rows, each of which has a room: two for each multiprocessor of the largest GPUs."""
SPAN = 1024
"""Columns of the tiles that a room holds."""


def gradients(p: Pairs, v: Tensor, weighing: Weights, g: Tensor) -> Found:
    """Return the gradients of sum_i <g_i, sum_j w_ij v_j>, as if lse were a constant; see `blocked.gradients`."""
    target = dispatch.target(p.x)
    operands, terms, of_terms = prepare(p, launch.products_of(p, target)), None, None
    if weighing.lse is not None:
        log_weights = None if weighing.log_weights is None else weighing.log_weights.float().contiguous()
        terms = Terms(-weighing.lse, log_weights)
    of_x, of_leaves = _of_rows(p, operands, v, terms, g, target, parameters=True)
    p, operands = replace(p, x=p.y, y=p.x, x_groups=p.y_groups, y_groups=p.x_groups), operands.swapped()
    terms = None if terms is None else Terms(terms.y_term, terms.x_term)
    of_y, _ = _of_rows(p, operands, g, terms, v, target, parameters=False)
    of_v = launch.weighted(p, operands, g, terms, target)
    if weighing.log_weights is not None:
        # sum_i w_ij <g_i, v_j>.
        of_terms = (v.float() * of_v).sum(1).to(weighing.log_weights.dtype)
    return Found(of_x.to(p.y.dtype), of_y.to(p.x.dtype), of_leaves.to(p.parameters.dtype), of_v.to(v.dtype), of_terms)


def _of_rows(
    p: Pairs, operands: Operands, v: Tensor, terms: Terms | None, g: Tensor, target: str, *, parameters: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients by the rows of x, and by the parameters if they are asked for; else anything."""
    found = torch.zeros(p.x.shape, dtype=torch.float32, device=p.x.device)
    of_leaves = p.parameters.new_zeros(len(leaves(p.tree)), PARAMETERS, dtype=torch.float64)
    for number, columns in enumerate(operands.columns):
        kernel, made = gradients_plan(p, operands, v, terms, g, number, target, parameters=parameters)
        run(kernel, made, p.x)
        of_base = made.arguments["out"].sum(0)
        # Bases may share columns.
        found[:, slice(*columns)] += of_base if kernel is not norm_gradients_kernel else of_base.T
        if parameters:
            of_leaves += made.arguments["by_leaf"].sum((2, 3))
    return found, of_leaves


def gradients_plan(
    p: Pairs,
    operands: Operands,
    v: Tensor,
    terms: Terms | None,
    g: Tensor,
    base: int,
    target: str,
    *,
    parameters: bool,
) -> tuple[Any, Launch]:
    """Choose kernel, tiles and grid of the gradients by the rows of x of one base, and allocate them."""
    width, products, kinds = operands.bases[base].width, operands.products, [kind for kind, _ in operands.kinds]
    tiles = tiling.gradients(target, products, kinds)
    blocks, splits, _ = launch.grid(p, tiles, 1)
    # What a softmax subtracts cancels: it is multiplied accurately.
    precision = accurate(target) if terms is not None else "tf32" if products == "half" else products
    g, v = _rows(g, precision), _rows(v, precision)
    by_leaf = p.x.new_empty(len(leaves(p.tree)), PARAMETERS, splits, blocks, dtype=torch.float64)
    arguments = launch.shared(p, operands, tiles) | {
        "g": g,
        "v": v,
        "x_term": None if terms is None else terms.x_term,
        "y_term": None if terms is None else terms.y_term,
        "by_leaf": by_leaf if parameters else None,
        "splits": splits,
        "g_width": g.shape[1],
        "g_row": g.stride(0),
        "v_row": v.stride(0),
        "OF": base,
        "G_PRECISION": precision,
        "WEIGHTED": terms is not None,
        "G_CHUNK": 1 if g.shape[1] == 1 else 16 if g.shape[1] <= 16 else 32,
    }
    if kinds[base] == "norm":
        arguments["out"] = p.x.new_zeros(splits, width, p.n, dtype=torch.float32)
        return norm_gradients_kernel, launch.planned(blocks * splits, arguments, tiles)
    arguments["WIDTH"] = min(max(16, 1 << (width - 1).bit_length()), tiles.width)
    if width <= tiles.width:
        arguments["out"] = p.x.new_empty(splits, p.n, width, dtype=torch.float32)
        return gradients_kernel, launch.planned(blocks * splits, arguments, tiles)
    programs, span = min(blocks * splits, WIDE_PROGRAMS), SPAN // tiles.columns
    dtype = torch.bfloat16 if p.x.dtype == torch.bfloat16 and target != "interpreter" else torch.float32
    arguments |= {
        "room": p.x.new_empty(programs, span, tiles.rows, tiles.columns, dtype=dtype),
        "out": p.x.new_zeros(splits, p.n, width, dtype=torch.float32),
        "items": blocks * splits,
        "programs": programs,
        "SPAN": span,
    }
    return wide_gradients_kernel, launch.planned(programs, arguments, tiles)


def _rows(rows: Tensor, precision: str) -> Tensor:
    """Return rows as float32, contiguous inside, rounded to what they are multiplied as."""
    rows = rows.float()
    rows = round_to_tf32(rows) if precision == "tf32" and rows.shape[1] > 1 else rows
    return rows if rows.shape[1] <= 1 or rows.stride(1) == 1 else rows.contiguous()
