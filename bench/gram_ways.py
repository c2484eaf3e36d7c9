"""What `gram_sums` measures: each op by its kernel, and split, as a product that is written and a reduction of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from bench.dense_cka import ratio
from lamina_kernels import gram

NEAREST = 16
PERMUTATIONS = 99
TEMPERATURE, BIAS = 0.1, -10.0
FIRST = 256
"""Rows of a result that are compared."""
TILE = 2**28
"""Values that a split way holds at a time."""

Parts = Mapping[str, Tensor]
Rows = Mapping[str, Tensor]


def fused(
    *, device: str, dtype: str, op: str, precision: Any = None, impl: Any = None, **arrays: np.ndarray
) -> Callable[[], Parts]:
    """An op of `lamina_kernels.gram`, in one of its forms."""
    rows = on_device(arrays, device, dtype)
    return lambda: FUSED[op](rows, {"precision": precision, "impl": impl})


def split(*, device: str, dtype: str, op: str, **arrays: np.ndarray) -> Callable[[], Parts]:
    """What one writes in torch: a product of a block of rows with all others, and a reduction of it."""
    rows = on_device(arrays, device, dtype)
    return lambda: SPLIT[op](rows)


def on_device(arrays: Mapping[str, np.ndarray], device: str, dtype: str) -> dict[str, Tensor]:
    """Return what a contender computes with."""
    return {name: torch.from_numpy(array).to(device, getattr(torch, dtype)) for name, array in arrays.items()}


def some(n: int) -> slice:
    """Return which rows of a long result are compared."""
    return slice(None, None, max(1, n // FIRST))


def bandwidth(rows: Rows) -> float:
    """Return a bandwidth at which the kernel of two rows of normal numbers is about exp(-1)."""
    return rows["x"].shape[-1] ** 0.5


def targets(rows: Rows) -> Tensor:
    """Return a class for each row."""
    return torch.arange(len(rows["x"]), device=rows["x"].device) % len(rows["y"])


FUSED: dict[str, Callable[[Rows, Mapping[str, Any]], Parts]] = {
    "product": lambda r, how: {
        "out": gram.product(r["x"], None, r["v"], kernel=gram.RBF(bandwidth(r)), **how)[some(len(r["x"]))].float()
    },
    "row_sums": lambda r, how: {
        "sums": gram.row_sums(r["x"], kernel=gram.Laplace(float(r["x"].shape[1]), norm=1), **how)[some(len(r["x"]))]
    },
    "argmin": lambda r, how: {"distances": gram.argmin(r["x"], r["y"], **how).distances[:FIRST]},
    "nearest": lambda r, how: {
        "distances": gram.nearest(r["x"], None, NEAREST, exclude="self", **how).distances[:FIRST]
    },
    "cka_matrix": lambda r, how: {
        "cka": gram.cka_matrix(list(r["x"]), kernel=gram.RBF(bandwidth(r)), **how).value.double()
    },
    "mmd": lambda r, how: {
        "value": gram.mmd(r["x"], r["y"], kernel=gram.RBF(bandwidth(r)), permutations=PERMUTATIONS, **how).value
    },
    "sigmoid loss": lambda r, how: {
        "loss": gram.pairwise_loss(r["x"], r["y"], temperature=TEMPERATURE, bias=BIAS, **how).double()
    },
    "InfoNCE": lambda r, how: {
        "loss": gram.pairwise_loss(r["x"], r["y"], kind="infonce", temperature=TEMPERATURE, **how).double()
    },
    "harmonic": lambda r, how: {
        "log p": gram.harmonic(r["x"], r["y"], targets(r), exponent=bandwidth(r), **how).log_probability[
            some(len(r["x"]))
        ]
    },
}


def tiles(rows: Tensor, others: Tensor, held: int = 1):
    """Yield blocks of rows, and their products with all others, in float64 if they are, else in float32."""
    step = max(1, TILE // (held * len(others)))
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    for start in range(0, len(rows), step):
        at = slice(start, start + step)
        yield at, (rows[at] @ others.T).to(wide)


def squares(rows: Tensor) -> Tensor:
    """Return squared norms, not rounded to half precision."""
    return (rows if rows.dtype == torch.float64 else rows.float()).square().sum(-1)


def gaussian(tile: Tensor, own: Tensor, others: Tensor, d: int) -> Tensor:
    """Return the RBF kernel of bandwidth sqrt(d) from products and squared norms."""
    return tile.mul_(2).sub_(others).sub_(own[:, None]).mul_(0.5 / d).clamp_(max=0).exp_()


def product(rows: Rows) -> Parts:
    x, v = rows["x"], rows["v"]
    sizes = squares(x)
    parts = [gaussian(tile, sizes[at], sizes, x.shape[1]).to(v.dtype) @ v for at, tile in tiles(x, x)]
    return {"out": torch.cat(parts)[some(len(x))].float()}


def row_sums(rows: Rows) -> Parts:
    """There is no product: the distances of a block of rows are written."""
    x = rows["x"]
    blocks = x.split(max(1, TILE // len(x)))
    sums = [torch.cdist(block, x, p=1).div_(-x.shape[1]).exp_().sum(1) for block in blocks]
    return {"sums": torch.cat(sums)[some(len(x))]}


def argmin(rows: Rows) -> Parts:
    """With counts and sums of the rows of each code."""
    x, codes = rows["x"], rows["y"]
    sizes, own, found = squares(codes), squares(x), []
    sums, counts = torch.zeros_like(codes, dtype=sizes.dtype), torch.zeros_like(sizes)
    for at, tile in tiles(x, codes):
        far, place = tile.mul_(-2).add_(sizes).min(1)
        found.append(far + own[at])
        sums.index_add_(0, place, x[at].to(sums.dtype))
        counts += place.bincount(minlength=len(codes))
    return {"distances": torch.cat(found)[:FIRST]}


def nearest(rows: Rows) -> Parts:
    x = rows["x"]
    sizes, found = squares(x), []
    for at, tile in tiles(x, x):
        far = tile.mul_(-2).add_(sizes).topk(NEAREST + 1, largest=False).values
        found.append(far[:, 1:] + sizes[at, None])
    return {"distances": torch.cat(found)[:FIRST]}


def cka_matrix(rows: Rows) -> Parts:
    """All layers' values of a block of rows, and one product of all with all."""
    layers, sizes = rows["x"], squares(rows["x"])
    count, _, d = layers.shape
    inner, sums = sizes.new_zeros(count, count, dtype=torch.float64), torch.zeros_like(sizes)
    for parts in zip(*(tiles(layer, layer, count) for layer in layers), strict=True):
        at = parts[0][0]
        k = torch.stack([gaussian(tile, own[at], own, d) for (_, tile), own in zip(parts, sizes, strict=True)])
        k.diagonal(at.start, 1, 2).zero_()
        sums[:, at] = k.sum(2)
        inner += k.flatten(1) @ k.flatten(1).T
    r = sums.double()
    values = [ratio([inner[a, a], inner[b, b], inner[a, b]], r[a], r[b]) for a in range(count) for b in range(count)]
    return {"cka": torch.stack(values).view(count, count)}


def mmd(rows: Rows) -> Parts:
    """With the sums that its permutations take."""
    n, m, both = len(rows["x"]), len(rows["y"]), torch.cat([rows["x"], rows["y"]])
    order = torch.stack([torch.randperm(n + m, device=both.device) for _ in range(PERMUTATIONS)], 1)
    members = torch.cat([torch.arange(n + m, device=both.device)[:, None], order], 1) < n
    columns, sizes, parts = members.to(both.dtype), squares(both), []
    for at, tile in tiles(both, both):
        k = gaussian(tile, sizes[at], sizes, both.shape[1])
        k.diagonal(at.start).zero_()
        parts.append(torch.cat([k.to(both.dtype) @ columns, k.sum(1, keepdim=True).to(both.dtype)], 1))
    sums = torch.cat(parts).double()
    within, every, others = sums[:, :-1], sums[:, -1:], ~members
    means = (members * within).sum(0) / (n * (n - 1)) + (others * (every - within)).sum(0) / (m * (m - 1))
    return {"value": (means - 2 * (others * within).sum(0) / (n * m))[0]}


def sigmoid_loss(rows: Rows) -> Parts:
    x, y = (normalize(rows[name], dim=1) for name in "xy")
    sums = [softplus(tile.div_(TEMPERATURE).add_(BIAS)).sum(1) for _, tile in tiles(x, y)]
    own = (x.double() * y.double()).sum(1) / TEMPERATURE + BIAS
    return {"loss": (torch.cat(sums) - own).mean()}


def infonce(rows: Rows) -> Parts:
    x, y = (normalize(rows[name], dim=1) for name in "xy")
    by_row, by_column = [], squares(y).fill_(-torch.inf)
    for _, tile in tiles(x, y):
        logits = tile.div_(TEMPERATURE)
        by_row.append(logits.logsumexp(1))
        by_column = torch.logaddexp(by_column, logits.logsumexp(0))
    own = (x.double() * y.double()).sum(1) / TEMPERATURE
    return {"loss": ((torch.cat(by_row) + by_column) / 2 - own).mean()}


def harmonic(rows: Rows) -> Parts:
    x, y, exponent = rows["x"], rows["y"], bandwidth(rows)
    own, others = squares(x), squares(y)
    parts = []
    for at, tile in tiles(x, y):
        far = tile.mul_(-2).add_(others).add_(own[at, None]).clamp_(min=torch.finfo(tile.dtype).tiny)
        parts.append(far.log_().mul_(-exponent / 2).logsumexp(1))
    distance = torch.linalg.vector_norm(x.to(own.dtype) - y[targets(rows)].to(own.dtype), dim=1)
    return {"log p": (-exponent * distance.log() - torch.cat(parts))[some(len(x))]}


SPLIT: dict[str, Callable[[Rows], Parts]] = {
    "product": product,
    "row_sums": row_sums,
    "argmin": argmin,
    "nearest": nearest,
    "cka_matrix": cka_matrix,
    "mmd": mmd,
    "sigmoid loss": sigmoid_loss,
    "InfoNCE": infonce,
    "harmonic": harmonic,
}
