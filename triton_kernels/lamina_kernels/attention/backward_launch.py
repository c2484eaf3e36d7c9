"""How the Triton kernels of the gradients are launched."""

from __future__ import annotations

from typing import Any

import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import gradients as formulas
from lamina_kernels.attention import operands, tiling
from lamina_kernels.attention.backward_keys import keys_kernel
from lamina_kernels.attention.backward_queries import queries_kernel
from lamina_kernels.attention.delta import delta_kernel
from lamina_kernels.attention.descriptors import described
from lamina_kernels.attention.launch import Launch, fitted, power_of_2, run, sequences
from lamina_kernels.attention.problem import Gradients, Problem, Sums
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import kind


def backward(problem: Problem, sums: Sums, gradients: Sums) -> Gradients:
    """Return all gradients, from three launches: <out, dout>, the queries, the keys and values.

    A gradient of the largest score needs its key.

    That of a table, which no kernel computes and the face refuses (`support.TABLE_GRADIENT`), is NaN.
    """
    target = dispatch.target(problem.q)
    delta = None
    if gradients.out is not None and problem.v.shape[3] == 0:
        gradients = gradients._replace(out=None)
    if gradients.out is not None:
        gradients = gradients._replace(out=_rows(gradients.out))
        if not problem.sigmoid:
            first = delta_plan(problem, sums.out, gradients.out)
            run(delta_kernel, first, problem.q)
            delta = first.arguments["delta"]
    shared = shared_arguments(problem, sums, gradients, delta, target)
    queries, keys = queries_plan(problem, shared, target), keys_plan(problem, shared, target)
    run(queries_kernel, queries, problem.q)
    run(keys_kernel, keys, problem.q)
    made = queries.arguments | keys.arguments
    dslopes = made["dslopes"]
    return Gradients(
        made["dq"].to(problem.q.dtype),
        made["dk"].to(problem.k.dtype),
        torch.zeros_like(problem.v) if gradients.out is None else made["dv"].to(problem.v.dtype),
        made["dquery_scale"],
        made["dkey_scale"],
        made["dquery_bias"],
        made["dkey_bias"],
        None if dslopes is None else dslopes.sum((0, 2)),
        None if problem.table is None else torch.full_like(problem.table, torch.nan),
    )


def delta_plan(problem: Problem, out: torch.Tensor, dout: torch.Tensor) -> Launch:
    """Choose tiles and grid of the products of outputs and their gradients."""
    batches, heads, rows, width = out.shape
    out = _rows(out)
    tile = max(1, 4096 // power_of_2(width))
    arguments = {
        "out": out,
        "dout": dout,
        "delta": out.new_empty(batches, heads, rows, dtype=torch.float32),
        "heads": heads,
        "rows": rows,
        "width": width,
        **{
            f"{name}_{axis}": stride for name, rows in (("out", out), ("dout", dout)) for axis, stride in _strides(rows)
        },
        "ROWS": tile,
        "WIDTH": power_of_2(width),
    }
    return Launch((ceil_div(rows, tile) * batches * heads,), arguments, {"num_warps": 4, "num_stages": 1})


def queries_plan(problem: Problem, shared: dict[str, Any], target: str) -> Launch:
    """Choose tiles and grid of the gradients of the queries, and allocate them."""
    tiles = fitted(tiling.of_queries(target, *_kind(shared)), problem)
    blocks = ceil_div(problem.max_seqlen_q, tiles.rows)
    arguments = {
        **shared,
        **operands.mask_arguments(problem, "query"),
        "dq": empty_rows(problem.q, problem.q.dtype, target),
        "dquery_scale": empty_numbers(problem.query_scale, problem.q),
        "dquery_bias": empty_numbers(problem.query_bias, problem.q),
        "dslopes": empty_numbers(problem.slopes, problem.q),
        "blocks": blocks,
        **described(shared, _by_tile(shared, tiles), target),
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * problem.q.shape[1] * sequences(problem),), arguments, options)


def keys_plan(problem: Problem, shared: dict[str, Any], target: str) -> Launch:
    """Choose tiles and grid of the gradients of the keys and values, and allocate them."""
    tiles = fitted(tiling.of_keys(target, *_kind(shared)), problem)
    blocks = ceil_div(problem.max_seqlen_k, tiles.columns)
    arguments = {
        **shared,
        **operands.mask_arguments(problem, "key"),
        "dk": empty_rows(problem.k, problem.k.dtype, target),
        "dv": None if shared["dout"] is None else empty_rows(problem.v, problem.v.dtype, target),
        "dkey_scale": empty_numbers(problem.key_scale, problem.q, problem.k.shape[2]),
        "dkey_bias": empty_numbers(problem.key_bias, problem.q, problem.k.shape[2]),
        "blocks": blocks,
        **described(shared, _by_tile(shared, tiles), target),
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    return Launch((blocks * problem.k.shape[1] * sequences(problem),), arguments, options)


def shared_arguments(
    problem: Problem, sums: Sums, gradients: Sums, delta: torch.Tensor | None, target: str
) -> dict[str, Any]:
    """Return the arguments that both kernels take; `delta` is <out, dout>, unless nobody needs it."""
    of_queries, dout = formulas.terms(problem, sums, gradients, delta), gradients.out
    products = operands.products(problem, target)
    shared = operands.arguments(problem, products)
    plain = shared.pop("PLAIN")
    if plain:
        shared["scale"] *= operands.LOG2E
    if dout is not None and products == "tf32":
        dout = operands.round_to_tf32(dout)
    planes, places = _planes(problem, of_queries)
    return {
        **shared,
        "dout": dout,
        **{f"dout_{axis}": stride for axis, stride in _strides(problem.v if dout is None else dout)},
        **operands.column_arguments(None if of_queries.columns is None else problem.columns),
        "terms": planes,
        "argmax": None if of_queries.argmax is None else of_queries.argmax.int(),
        "to_columns": None if of_queries.columns is None else of_queries.columns.contiguous(),
        "plane": problem.q.shape[0] * problem.q.shape[1] * problem.q.shape[2],
        # What turns sums over ds c k (times a) and ds a c q into gradients; a has the scale in it, in units of scores.
        "bare_scale": problem.scale,
        "unscale": problem.scale if problem.query_scale is None else 1 / operands.unit(problem),
        "SIGMOID": problem.sigmoid,
        **places,
        "COLUMN_PRECISION": _column_precision(products, target, problem.q.shape[3]),
        "WIDTH": power_of_2(problem.q.shape[3]),
        "VALUE_WIDTH": power_of_2(problem.v.shape[3]),
    }


def _planes(problem: Problem, of_queries: formulas.Terms) -> tuple[torch.Tensor | None, dict[str, int]]:
    """Put the terms of the queries into one tensor [planes, B, H, Nq], and say which stands where; -1 for none.

    Logarithms are of base 2 in the kernels.
    """
    distance = of_queries.distance
    one_sided = problem.causal or problem.right == 0
    planes: list[torch.Tensor] = []
    places: dict[str, int] = {}

    def put(name: str, *parts: torch.Tensor | None) -> None:
        places[name] = -1 if parts[0] is None else len(planes)
        planes.extend(part for part in parts if part is not None)

    if of_queries.lse is not None:
        put("lse", of_queries.lse * operands.LOG2E)
    put("CONSTANT", of_queries.constant)
    put("LOG", None if of_queries.log is None else of_queries.log / operands.LOG2E)
    put("SQUARE", of_queries.square)
    if distance is None:
        put("DISTANCE", None)
        put("ABSOLUTE", None)
    elif one_sided:
        # The distance is its absolute value.
        put("DISTANCE", distance[0], distance[1] + distance[4], distance[2] + distance[5])
        put("ABSOLUTE", None)
    else:
        put("DISTANCE", *distance[:3])
        put("ABSOLUTE", *distance[3:])
    put("MAX", of_queries.max)
    places.pop("lse", None)
    return torch.stack([plane.float() for plane in planes]) if planes else None, places


def _column_precision(products: str, target: str, width: int) -> str:
    """Return how columns are multiplied with their gradients.

    Beside rows wider than 128, Blackwell has no tensor memory left for it.
    """
    if target.startswith("hip:") or products == "ieee" or (width > 128 and kind(target) == "blackwell"):
        return "ieee"
    return "bf16x3" if products == "half" else "bf16x6"


def _kind(shared: dict[str, Any]) -> tuple[str, int, int]:
    """Return what tiles depend on but for the target."""
    many = shared["columns"] is not None or any(shared[name] >= 0 for name in ("DISTANCE", "ABSOLUTE"))
    some = any(shared[name] >= 0 for name in ("LOG", "SQUARE", "MAX"))
    return shared["PRECISION"], max(shared["WIDTH"], shared["VALUE_WIDTH"]), 2 if many else int(some)


def _by_tile(shared: dict[str, Any], tiles: tiling.Tiling) -> dict[str, tuple[int, int]]:
    """Return rows and columns of the tiles of each tensor."""
    width, value_width = shared["WIDTH"], shared["VALUE_WIDTH"]
    sizes = {"q": (tiles.rows, width), "k": (tiles.columns, width)}
    # Values are looked at with a gradient of the output alone.
    of_values = {"v": (tiles.columns, value_width), "dout": (tiles.rows, value_width)}
    return sizes if shared["dout"] is None else sizes | of_values


def _rows(rows: torch.Tensor) -> torch.Tensor:
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


def _strides(rows: torch.Tensor) -> list[tuple[str, int]]:
    return list(zip(("batch", "head", "row"), rows.stride()[:3], strict=True))


def empty_rows(rows: torch.Tensor, dtype: torch.dtype, target: str) -> torch.Tensor:
    """Return memory for the gradient of rows, without gaps; the interpreter cuts digits off where it makes bfloat16."""
    whole = target == "interpreter" and dtype == torch.bfloat16
    return rows.new_empty(rows.shape, dtype=torch.float32 if whole else dtype)


def empty_numbers(part: torch.Tensor | None, q: torch.Tensor, rows: int | None = None) -> torch.Tensor | None:
    """Return memory for a number a row, or a key, of each head; None where the problem has no such part."""
    if part is None:
        return None
    return q.new_empty(*q.shape[:2], rows or q.shape[2], dtype=torch.float32)
