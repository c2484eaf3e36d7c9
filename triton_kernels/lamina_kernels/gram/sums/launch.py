"""How the Triton kernels of sums are launched: operands, tiles, grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels import dispatch
from lamina_kernels.gram import tiling
from lamina_kernels.gram.operands import Operands, in_tiles, is_bounded, prepare, products_of
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums.forward import sums_kernel
from lamina_kernels.gram.sums.sides import sides_kernel
from lamina_kernels.gram.sums.softmax import softmax_kernel
from lamina_kernels.gram.terms import Leaf
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles.launch import Launch, run
from lamina_kernels.tiles.rounding import round_to_tf32
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import kind

# Programs that keep the largest GPUs busy. It is the same number everywhere: the sums do not depend on the GPU.
PROGRAMS = 512
# Parts that rows are cut into where columns are summed too: each has a number of every column in memory.
DOWN = 16
# Rows of y that are worth a program of their own.
COLUMNS = 2048
# Columns of v that are summed at a time: as many as a program holds twice, for what rounding lost.
VALUES = 64


class Terms(NamedTuple):
    """What is added to kernel values, whose exponentials are the weights then.

    Attributes:
        x_term: [n] float32, or None.
        y_term: [m] float32, or None.
    """

    x_term: Tensor | None
    y_term: Tensor | None


def sums(p: Pairs, v: Tensor) -> Tensor:
    """Return sum_j k_ij v_j, [n, width of v], from one launch; tiles are summed as exactly as in float64."""
    target = dispatch.target(p.x)
    return weighted(p, prepare(p, products_of(p, target)), v, None, target)


def weighted(p: Pairs, operands: Operands, v: Tensor, terms: Terms | None, target: str) -> Tensor:
    """Return sum_j w_ij v_j, [n, width of v] float32, where w is k, or its exponential with terms."""
    launch = sums_plan(p, operands, v, terms, target)
    run(sums_kernel, launch, p.x)
    parts = launch.arguments["out"]
    return parts[0] if len(parts) == 1 else parts.double().sum(0).float()


def softmax(p: Pairs, v: Tensor, log_weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows of v under the softmax of k_ij + log_weights_j over j, and its log-sum-exp."""
    target = dispatch.target(p.x)
    launch = softmax_plan(p, prepare(p, products_of(p, target)), v, log_weights, target)
    run(softmax_kernel, launch, p.x)
    out, lse = launch.arguments["out"], launch.arguments["lse"]
    if len(lse) == 1:
        return out[0], lse[0]
    whole = lse.double().logsumexp(0)
    shares = (lse - whole.masked_fill(whole == -torch.inf, 0)).exp()
    return (out * shares[:, :, None]).sum(0).float(), whole.float()


def sides(p: Pairs) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exps of k_ij over j, [n], and over i, [m], from one launch."""
    target = dispatch.target(p.x)
    launch = sides_plan(p, prepare(p, products_of(p, target)), target)
    run(sides_kernel, launch, p.x)
    arguments = launch.arguments
    of_columns = (arguments["tops"].double() + arguments["masses"].log()).logsumexp(0)
    return arguments["of_rows"].double().logsumexp(0).float(), of_columns.float()


def sums_plan(p: Pairs, operands: Operands, v: Tensor, terms: Terms | None, target: str) -> Launch:
    """Choose tiles and grid of sums for a target, and allocate what they write."""
    operands = _in_float16(p, operands, target)
    of_v = _values(p, v, operands.products, target, exponentials=terms is not None)
    kinds, width = [each for each, _ in operands.kinds], operands.bases[0].width
    light = p.x_groups is None and (v.shape[1] <= 1 or of_v["VALUE_PRECISION"] == "half")
    slim = is_slim(p, operands, v.shape[1], light=light) and (light or kind(target) == "hopper")
    tiles = tiling.sums(target, operands.products, kinds, slim=slim, width=width)
    operands = operands.taken_apart(tiles.width)
    tiles = _narrowed(tiles, operands, of_v)
    arguments = shared(p, operands, tiles) | of_v | operands.by_descriptors(tiles, of_v, target)
    blocks, splits, parts = grid(p, tiles, ceil_div(v.shape[1], max(arguments["VALUES"], 1)))
    arguments |= {
        "x_term": None if terms is None else terms.x_term,
        "y_term": None if terms is None else terms.y_term,
        "WEIGHTED": terms is not None,
        "out": p.x.new_empty(splits, p.n, v.shape[1], dtype=torch.float32),
        "splits": splits,
    }
    return planned(blocks * splits * parts, arguments, tiles)


def softmax_plan(p: Pairs, operands: Operands, v: Tensor, log_weights: Tensor | None, target: str) -> Launch:
    """Choose tiles and grid of a softmax for a target, and allocate what it writes."""
    operands = _in_float16(p, operands, target)
    slim = operands.products != "half" and v.shape[1] == 0 and is_slim(p, operands, 0)
    tiles = tiling.softmax(target, operands.products, [kind for kind, _ in operands.kinds], slim=slim)
    operands = operands.taken_apart(tiles.width)
    of_v = _values(p, v, operands.products, target, exponentials=True)
    tiles = _narrowed(tiles, operands, of_v)
    arguments = shared(p, operands, tiles) | of_v
    blocks, splits, parts = grid(p, tiles, max(1, ceil_div(v.shape[1], max(arguments["VALUES"], 1))))
    arguments |= {
        "y_term": None if log_weights is None else log_weights.float().contiguous(),
        "out": p.x.new_empty(splits, p.n, v.shape[1], dtype=torch.float32),
        "lse": p.x.new_empty(splits, p.n, dtype=torch.float32),
        "splits": splits,
    }
    return planned(blocks * splits * parts, arguments, tiles)


def sides_plan(p: Pairs, operands: Operands, target: str) -> Launch:
    """Choose tiles and grid of log-sum-exps of both sides, and allocate what the kernel writes."""
    operands = _in_float16(p, operands, target)
    kinds = [kind for kind, _ in operands.kinds]
    tiles = tiling.sides(target, operands.products, kinds, slim=is_slim(p, operands, 0))
    operands = operands.taken_apart(tiles.width)
    blocks, strips = ceil_div(p.n, tiles.rows), ceil_div(p.m, tiles.columns)
    span = ceil_div(blocks, DOWN)
    down = ceil_div(blocks, span)
    stretch = ceil_div(strips, ceil_div(PROGRAMS, down))
    across = ceil_div(strips, stretch)
    names = ("bases", "CODE", "BASES", "parameters", "n", "m", "PRECISION", "ROWS", "COLUMNS")
    made = shared(p, operands, tiles)
    arguments = {name: made[name] for name in names} | {
        "of_rows": p.x.new_empty(across, p.n, dtype=torch.float32),
        "tops": p.x.new_full((down, p.m), -torch.inf, dtype=torch.float32),
        "masses": p.x.new_zeros(down, p.m, dtype=torch.float64),
        "down": down,
        "span": span,
        "stretch": stretch,
    }
    return planned(down * across, arguments, tiles)


def _in_float16(p: Pairs, operands: Operands, target: str) -> Operands:
    """Return operands whose rows are to be float16: in place of TF32, or in two parts."""
    if operands.products != "half" and p.precision == "fp16x3" and tiling.parts(target, "fp16x3"):
        return operands._replace(products="fp16x3")
    return operands.halved()


def is_slim(p: Pairs, operands: Operands, values: int, *, light: bool = False) -> bool:
    """Return whether a program has registers for wide tiles, with so many columns of v; others spill them.

    Half precision has them of rows wider than a tile that is loaded whole, and of others where weights are light: no
    groups are compared, and v is in half precision or one column. Float32 has them for sums of one column.
    """
    half, width = operands.products == "half", operands.bases[0].width
    if not isinstance(p.tree, Leaf) or p.tree.base == "own":
        return False
    fits = (light or width > 128) if half else width > 64
    plain = p.tree.function in ("exp", "identity") and values <= 16 and fits
    return plain or (not half and values <= 1)


def shared(p: Pairs, operands: Operands, tiles: Tiling) -> dict[str, Any]:
    """Return what all kernels of sums take, by name."""
    return {
        "bases": operands.bases,
        "CODE": operands.code,
        "BASES": operands.base_code(tiles.whole, together=tiles.together),
        "parameters": p.parameters.float().contiguous(),
        "x_groups": None if p.x_groups is None else p.x_groups.contiguous(),
        "y_groups": None if p.y_groups is None else p.y_groups.contiguous(),
        "n": p.n,
        "m": p.m,
        "PRECISION": operands.products,
        "SAME": p.same,
        "APART": p.apart,
        "ROWS": tiles.rows,
        "COLUMNS": tiles.columns,
    }


def grid(p: Pairs, tiles: Tiling, parts: int) -> tuple[int, int, int]:
    """Return the blocks of rows, how many parts y is cut into to keep a GPU busy, and the parts that are asked for."""
    blocks = ceil_div(p.n, tiles.rows)
    splits = min(ceil_div(PROGRAMS, max(blocks * parts, 1)), ceil_div(p.m, COLUMNS))
    return blocks, max(splits, 1), parts


def planned(programs: int, arguments: dict[str, Any], tiles: Tiling) -> Launch:
    """Return the launch."""
    return Launch((programs,), arguments, {"num_warps": tiles.warps, "num_stages": tiles.stages})


def _values(p: Pairs, v: Tensor, products: str, target: str, *, exponentials: bool) -> dict[str, Any]:
    """Return how the rows of v are multiplied, by kernel values or by exponentials.

    Weights take the dtype of v. Those that float16 may not hold are multiplied in TF32, which has as many digits. What
    comes as float32 to exponentials, gradients of a softmax, cancels: it is multiplied accurately.
    """
    width, single = v.shape[1], p.x.dtype == torch.float32
    precision = in_tiles(products, target)
    if v.dtype == torch.float16 and not exponentials and not is_bounded(p.tree):
        v = v.float()
    if v.dtype == torch.float32 and exponentials:
        precision = in_tiles(p.precision if products != "half" else None, target)
    elif v.dtype == torch.float32 and products == "half":
        precision = "tf32"
    if v.dtype == torch.float32 and single and p.precision == "tf32" and kind(target) != "amd":
        # 11 bits of weights and of v would be most of the error, for sums of random signs; these few products are not.
        precision = "bf16x3"
    # One column alone is summed without tensor cores.
    if precision == "tf32" and v.dtype == torch.float32 and width > 1:
        v = round_to_tf32(v)
    v = v if width <= 1 or v.stride(1) == 1 else v.contiguous()
    block = width if width <= 1 else min(max(16, 1 << (width - 1).bit_length()), VALUES)
    return {"v": v, "v_row": v.stride(0), "values_width": width, "VALUES": block, "VALUE_PRECISION": precision}


def _narrowed(tiles: Tiling, operands: Operands, of_v: dict[str, Any]) -> Tiling:
    """Return tiles of rows in half precision that leave registers for weights of float32, which are two tiles there."""
    if operands.products != "half" or of_v["VALUE_PRECISION"] != "bf16x3" or of_v["VALUES"] <= 1:
        return tiles
    columns = min(tiles.columns, 128)
    return tiles._replace(columns=columns if of_v["VALUES"] <= 32 else max(columns // 2, 32), described=False)
