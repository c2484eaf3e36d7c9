"""How the Triton kernels of a divergence are launched."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import operands, tiling
from lamina_kernels.attention.backward_launch import empty_numbers, empty_rows
from lamina_kernels.attention.descriptors import described
from lamina_kernels.attention.divergence_backward import divergence_keys_kernel, divergence_queries_kernel
from lamina_kernels.attention.divergence_forward import divergence_kernel
from lamina_kernels.attention.divergence_score import Model
from lamina_kernels.attention.gradients import NO_KEY
from lamina_kernels.attention.launch import Launch, fitted, power_of_2, run, sequences
from lamina_kernels.attention.problem import Divergences, Gradients, Known, Problem
from lamina_kernels.tiles.rows import ceil_div

LN2 = 1 / operands.LOG2E


def divergence(first: Problem, second: Problem, kind: str, known: Known = None) -> Divergences:
    """Return the divergence of the weights of two problems, and the means that its gradients need, from one launch."""
    launch = forward_plan(first, second, kind, dispatch.target(first.q), known)
    run(divergence_kernel, launch, first.q)
    return Divergences(*launch.arguments["found"])


def divergence_backward(
    first: Problem,
    second: Problem,
    kind: str,
    found: Divergences,
    gradient: torch.Tensor,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Gradients | None, Gradients | None]:
    """Return the gradients by each problem that needs them, from two launches; v has none."""
    made: list[Gradients | None] = [None, None]
    target = dispatch.target(first.q)
    for side, (own, other) in enumerate(((first, second), (second, first))):
        if not needed[side]:
            continue
        shared = backward_arguments(own, other, kind, own is first, found, gradient, target)
        queries, keys = queries_plan(own, shared, target), keys_plan(own, shared, target)
        run(divergence_queries_kernel, queries, own.q)
        run(divergence_keys_kernel, keys, own.q)
        made[side] = _gradients(own, queries.arguments | keys.arguments)
    return made[0], made[1]


def forward_plan(first: Problem, second: Problem, kind: str, target: str, known: Known = None) -> Launch:
    """Choose tiles and grid of the divergence, and allocate it."""
    lse, other_lse = known or (None, None)
    # Sums hold scores in nats.
    shared = shared_arguments(first, second, kind, target, 1.0)
    shared |= {
        "PLAIN": operands.is_plain(first),
        "OTHER_PLAIN": operands.is_plain(second),
        "known": None if lse is None else lse.contiguous(),
        "other_known": None if other_lse is None else other_lse.contiguous(),
        "found": first.q.new_empty(len(Divergences._fields), *first.q.shape[:3], dtype=torch.float32),
    }
    return _plan(first, shared, "query", tiling.divergence(target, *_kind(shared)), target)


def backward_arguments(
    own: Problem, other: Problem, kind: str, first: bool, found: Divergences, gradient: torch.Tensor, target: str
) -> dict[str, Any]:
    """Return the arguments of the gradients by `own`, which is the `first` problem or the second."""
    return {
        **shared_arguments(own, other, kind, target, operands.LOG2E),
        "terms": planes(kind, first, found, gradient),
        "FIRST": first,
        # What turns sums over ds c k (times a) and ds a c q into gradients; a has the scale in it, in units of scores.
        "bare_scale": own.scale,
        "unscale": own.scale if own.query_scale is None else 1 / operands.unit(own),
    }


def queries_plan(own: Problem, shared: dict[str, Any], target: str) -> Launch:
    """Choose tiles and grid of the gradients of the queries, and allocate them."""
    made = {
        "dq": empty_rows(own.q, own.q.dtype, target),
        "dquery_scale": empty_numbers(own.query_scale, own.q),
        "dquery_bias": empty_numbers(own.query_bias, own.q),
        "dslopes": empty_numbers(own.slopes, own.q),
    }
    return _plan(own, shared | made, "query", tiling.divergence_of_queries(target, *_kind(shared)), target)


def keys_plan(own: Problem, shared: dict[str, Any], target: str) -> Launch:
    """Choose tiles and grid of the gradients of the keys, and allocate them."""
    made = {
        "dk": empty_rows(own.k, own.k.dtype, target),
        "dkey_scale": empty_numbers(own.key_scale, own.q, own.k.shape[2]),
        "dkey_bias": empty_numbers(own.key_bias, own.q, own.k.shape[2]),
    }
    return _plan(own, shared | made, "key", tiling.divergence_of_keys(target, *_kind(shared)), target)


def shared_arguments(own: Problem, other: Problem, kind: str, target: str, nat: float) -> dict[str, Any]:
    """Return the arguments that all three kernels take; `nat` is as in `operands.arguments`."""
    made: dict[str, Any] = {"KIND": kind}
    for prefix, p in (("other_", other), ("", own)):
        products = operands.products(p, target)
        arguments = operands.arguments(p, products, nat)
        if arguments["PLAIN"]:
            arguments["scale"] *= nat
        if not arguments["CAPPED"]:
            arguments["cap"] = None
        made |= {
            f"{prefix}q": arguments["q"],
            f"{prefix}k": arguments["k"],
            "other" if prefix else "model": Model(**{name: arguments[name] for name in Model._fields}),
            f"{prefix.upper()}WIDTH": power_of_2(p.q.shape[3]),
            f"{prefix.upper()}PRECISION": products,
        }
    # What is about places is the same of both.
    places = (
        "cu_seqlens_q",
        "cu_seqlens_k",
        "heads",
        "queries",
        "keys",
        "left",
        "right",
        "LEFT",
        "RIGHT",
        "BOTTOM_RIGHT",
    )
    return made | {name: arguments[name] for name in places} | {"plane": own.q.shape[:3].numel()}


def planes(kind: str, first: bool, found: Divergences, gradient: torch.Tensor) -> torch.Tensor:
    """Return what a score's gradient needs to know of its query, [4, B, H, Nq].

    The log-sum-exps of the model that gradients are of and of the other one, in units of log 2; and what makes of the
    derivative f' by a weight p the gradient p (gain f' + constant) of the score, f' in units of its kind.
    """
    lse, other_lse, mean = found.lse, found.other_lse, found.mean
    if not first:
        lse, other_lse, mean = other_lse, lse, found.other_mean
    # Nothing depends on the scores of a query without weights, nor does what is infinite.
    still = (lse == -torch.inf) | (found.value == torch.inf)
    gradient, mean = gradient.float().masked_fill(still, 0), mean.masked_fill(still, 0)
    units = {"kl": LN2 if first else 1.0, "js": LN2 / 2, "tv": 0.5}
    known = [x.masked_fill(x == -torch.inf, NO_KEY) * operands.LOG2E for x in (lse, other_lse)]
    return torch.stack([*known, gradient * units[kind], -gradient * mean])


def _kind(shared: dict[str, Any]) -> tuple[str, int]:
    """Return what tiles depend on but for the target."""
    return shared["PRECISION"], max(shared["WIDTH"], shared["OTHER_WIDTH"])


def _plan(own: Problem, arguments: dict[str, Any], side: str, tiles: tiling.Tiling, target: str) -> Launch:
    """Return the launch by blocks of queries, or of keys."""
    tiles = fitted(tiles, own)
    of, length, tile = (
        (own.q, own.max_seqlen_q, tiles.rows) if side == "query" else (own.k, own.max_seqlen_k, tiles.columns)
    )
    blocks = ceil_div(length, tile)
    by_tile = {
        f"{prefix}{name}": (rows, arguments[f"{prefix.upper()}WIDTH"])
        for prefix in ("", "other_")
        for name, rows in (("q", tiles.rows), ("k", tiles.columns))
    }
    made = {
        **arguments,
        **operands.mask_arguments(own, side),
        **described(arguments, by_tile, target),
        "blocks": blocks,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * of.shape[1] * sequences(own),), made, options)


def _gradients(own: Problem, made: dict[str, Any]) -> Gradients:
    """Name what the launches left; the gradient of a table, which no kernel computes and the face refuses, is NaN."""
    dslopes = made["dslopes"]
    return Gradients(
        made["dq"].to(own.q.dtype),
        made["dk"].to(own.k.dtype),
        own.v.new_zeros(own.v.shape),
        made["dquery_scale"],
        made["dkey_scale"],
        made["dquery_bias"],
        made["dkey_bias"],
        None if dslopes is None else dslopes.sum((0, 2)),
        None if own.table is None else torch.full_like(own.table, torch.nan),
    )
