"""How the Triton kernels of the gradients of sums are launched: once for each side that is wanted and each base."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.kernels import across
from lamina_kernels.gram.operands import EXACT, Operands, prepare
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums import launch
from lamina_kernels.gram.sums.backward import gradients_kernel
from lamina_kernels.gram.sums.backward_norm import norm_gradients_kernel
from lamina_kernels.gram.sums.backward_parameters import parameters_kernel
from lamina_kernels.gram.sums.backward_wide import wide_gradients_kernel
from lamina_kernels.gram.sums.blocked import Found, Wanted, Weights, together
from lamina_kernels.gram.sums.launch import Terms
from lamina_kernels.gram.terms import PARAMETERS, leaves
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rounding import round_to_tf32
from lamina_kernels.tiles.target import accurate

WIDE_PROGRAMS = 264
"""Programs of wide rows, each of which has a room: two for each multiprocessor of the largest GPUs."""
SPAN = 1024
"""Columns of the tiles that a room holds."""
FEW = 2
"""Columns of what kernel values are multiplied with whose products take no tensor cores."""


def gradients(p: Pairs, v: Tensor, weighing: Weights, g: Tensor, wanted: Wanted) -> Found:
    """Return the gradients of sum_i <g_i, sum_j w_ij v_j> that are wanted; see `blocked.gradients`.

    Those of the parameters come with those of the rows of one side; nobody's rows, and they are a launch of their own.
    """
    target = dispatch.target(p.x)
    if p.precision in EXACT:
        # Such gradients cancel with others.
        p = replace(p, precision=None)
    operands, terms, turned = prepare(p, launch.products_of(p, target)), None, None
    if weighing.lse is not None:
        log_weights = None if weighing.log_weights is None else weighing.log_weights.float().contiguous()
        terms, turned = Terms(-weighing.lse, log_weights), Terms(log_weights, -weighing.lse)
    of_x = of_y = of_leaves = of_v = of_terms = None
    if wanted.x and together(p, weighted=terms is not None):
        # The gradient of k_ij, <g_i, v_j>, and that of its mirror image, <v_i, g_j>, in one walk.
        one, other = torch.cat([g, v.to(g.dtype)], 1), torch.cat([v.to(g.dtype), g], 1)
        of_x, of_leaves = _of_rows(p, operands, other, None, one, target, parameters=wanted.parameters)
        of_leaves = None if of_leaves is None else of_leaves / 2
    elif wanted.x:
        of_x, of_leaves = _of_rows(p, operands, v, terms, g, target, parameters=wanted.parameters)
    if wanted.y:
        parameters = wanted.parameters and not wanted.x
        of_y, found = _of_rows(p.swapped, operands.swapped(), g, turned, v, target, parameters=parameters)
        of_leaves = found if parameters else of_leaves
    if wanted.parameters and of_leaves is None:
        made = parameters_plan(p, operands, v, terms, g, target)
        run(parameters_kernel, made, p.x)
        of_leaves = made.arguments["by_leaf"].sum((2, 3))
    if wanted.v or wanted.log_weights:
        of_v = launch.weighted(p.swapped, operands.swapped(), g, turned, target)
        # sum_i w_ij <g_i, v_j>.
        of_terms = (v.float() * of_v).sum(1) if wanted.log_weights else None
        of_v = of_v if wanted.v else None
    made = of_x, of_y, of_leaves, of_v, of_terms
    held = p.x, p.y, p.parameters, v, weighing.log_weights
    return Found(*(x if x is None or like is None else x.to(like.dtype) for x, like in zip(made, held, strict=True)))


def _of_rows(
    p: Pairs, operands: Operands, v: Tensor, terms: Terms | None, g: Tensor, target: str, *, parameters: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients by the rows of x, and by the parameters if they are asked for."""
    found = torch.zeros(p.x.shape, dtype=torch.float32, device=p.x.device)
    of_leaves = p.parameters.new_zeros(len(leaves(p.tree)), PARAMETERS, dtype=torch.float64) if parameters else None
    for number, span in enumerate(operands.columns):
        kernel, made = gradients_plan(p, operands, v, terms, g, number, target, parameters=parameters)
        run(kernel, made, p.x)
        of_base = made.arguments["out"].sum(0)
        of_base = of_base if kernel is not norm_gradients_kernel else of_base.T
        columns = slice(*span)
        if operands.kinds[number][0] == "cosine":
            of_base = across(p.x[:, columns].float(), of_base)
        # Bases may share columns.
        found[:, columns] += of_base
        if of_leaves is not None:
            of_leaves += made.arguments["by_leaf"].sum((2, 3))
    return found, of_leaves


def parameters_plan(p: Pairs, operands: Operands, v: Tensor, terms: Terms | None, g: Tensor, target: str) -> Launch:
    """Choose tiles and grid of the gradients by the parameters alone, and allocate them."""
    tiles = tiling.gradients(target, operands.products, [kind for kind, _ in operands.kinds])
    programs, arguments = _shared(p, operands, v, terms, g, target, tiles, parameters=True)
    return launch.planned(programs, arguments, tiles)


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
    width, kinds = operands.bases[base].width, [kind for kind, _ in operands.kinds]
    tiles = tiling.gradients(target, operands.products, kinds)
    items, arguments = _shared(p, operands, v, terms, g, target, tiles, parameters=parameters)
    arguments["OF"], splits = base, arguments["splits"]
    if kinds[base] == "norm":
        arguments["out"] = p.x.new_zeros(splits, width, p.n, dtype=torch.float32)
        return norm_gradients_kernel, launch.planned(items, arguments, tiles)
    arguments["WIDTH"] = min(max(16, 1 << (width - 1).bit_length()), tiles.width)
    if width <= tiles.width:
        arguments["out"] = p.x.new_empty(splits, p.n, width, dtype=torch.float32)
        return gradients_kernel, launch.planned(items, arguments, tiles)
    programs, span = min(items, WIDE_PROGRAMS), SPAN // tiles.columns
    dtype = torch.bfloat16 if p.x.dtype == torch.bfloat16 and target != "interpreter" else torch.float32
    arguments |= {
        "room": p.x.new_empty(programs, span, tiles.rows, tiles.columns, dtype=dtype),
        "out": p.x.new_zeros(splits, p.n, width, dtype=torch.float32),
        "items": items,
        "programs": programs,
        "SPAN": span,
    }
    return wide_gradients_kernel, launch.planned(programs, arguments, tiles)


def _shared(
    p: Pairs,
    operands: Operands,
    v: Tensor,
    terms: Terms | None,
    g: Tensor,
    target: str,
    tiles: Tiling,
    *,
    parameters: bool,
) -> tuple[int, dict[str, Any]]:
    """Return the blocks of rows times the parts of y, and what all kernels of gradients take, by name."""
    blocks, splits, _ = launch.grid(p, tiles, 1)
    # What a softmax subtracts cancels: it is multiplied accurately.
    precision = operands.products if operands.products != "half" else "tf32"
    precision = accurate(target) if terms is not None else precision
    g, v = _rows(g, precision), _rows(v, precision)
    shape = len(leaves(p.tree)), PARAMETERS, splits, blocks
    arguments = launch.shared(p, operands, tiles) | {
        "g": g,
        "v": v,
        "x_term": None if terms is None else terms.x_term,
        "y_term": None if terms is None else terms.y_term,
        "by_leaf": p.x.new_empty(shape, dtype=torch.float64) if parameters else None,
        "splits": splits,
        "g_width": g.shape[1],
        "g_row": g.stride(0),
        "v_row": v.stride(0),
        "G_PRECISION": precision,
        "WEIGHTED": terms is not None,
        "G_CHUNK": g.shape[1] if 0 < g.shape[1] <= FEW else 16 if g.shape[1] <= 16 else 32,
    }
    return blocks * splits, arguments


def _rows(rows: Tensor, precision: str) -> Tensor:
    """Return rows as float32, contiguous inside, rounded to what they are multiplied as."""
    rows = rows.float()
    rows = round_to_tf32(rows) if precision == "tf32" and rows.shape[1] > FEW else rows
    return rows if rows.shape[1] <= 1 or rows.stride(1) == 1 else rows.contiguous()
