"""Distances of rows of x to chosen rows of y, from differences in float64, and their gradients by gathering rows.

`pull` is the gradient of distances, `along` their derivative as x moves along a and y along b. The two are adjoint, and
linear in a and b: so each is the gradient of the other, and distances have gradients of any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lamina_kernels.operators import operator, plainly, tensors
from lamina_kernels.tiles.rows import tiles

NUMBERS = {"cpu": 2**17, "cuda": 2**26}
"""Numbers of gathered rows in memory at a time, by device: in float64 they fit a core's cache, or fill a GPU."""


def distances(base: str, x: Tensor, y: Tensor, places: Tensor) -> Tensor:
    """Return t(x_i, y_j) of the rows j in row i of `places`, without gradients.

    Args:
        base: "square", "dot", or "norm" for the sum of absolute differences.
        x: [n, d].
        y: [m, d].
        places: [n, k] int64, rows of y; -1 for none.

    Returns:
        [n, k] float64; infinite where there is none.
    """
    out = torch.empty(places.shape, dtype=torch.float64, device=x.device)
    for rows in _pieces(x, places):
        near, a = _gathered(y, places[rows]), x[rows, None].double()
        if base == "dot":
            out[rows] = near.mul_(a).sum(2).neg_()
        else:
            differences = near.sub_(a)
            out[rows] = (differences.square_() if base == "square" else differences.abs_()).sum(2)
    return out.masked_fill_(places < 0, torch.inf)


def distances_of_pairs(base: str, x: Tensor, y: Tensor, rows: Tensor, places: Tensor) -> Tensor:
    """Return t(x_i, y_j) of pairs, i in `rows` and j in `places`, [pairs] both; float64 [pairs]."""
    out = torch.empty(rows.shape, dtype=torch.float64, device=x.device)
    step = max(1, NUMBERS[x.device.type] // max(x.shape[1], 1))
    for some in tiles(len(rows), step):
        out[some] = distances(base, x[rows[some]], y, places[some, None])[:, 0]
    return out


def along(base: str, x: Tensor, y: Tensor, a: Tensor, b: Tensor, places: Tensor) -> Tensor:
    """Return how fast t(x_i, y_j) grows as x_i moves along a_i and y_j along b_j, [n, k] float64; 0 where none is."""
    return _along(x, y, a, b, places, base)


def pull(base: str, x: Tensor, y: Tensor, places: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of sum_ik g_ik t(x_i, y_j) by x and by y, in their dtypes."""
    return _pull(x, y, places, g, base)


@operator("gram_along_gathered", "(Tensor x, Tensor y, Tensor a, Tensor b, Tensor places, str base) -> Tensor")
def _along(x: Tensor, y: Tensor, a: Tensor, b: Tensor, places: Tensor, base: str) -> Tensor:
    out = torch.empty(places.shape, dtype=torch.float64, device=x.device)
    with plainly(x):
        for rows in _pieces(x, places):
            here = places[rows]
            if base == "dot":
                moved = a[rows, None].double() * _gathered(y, here) + x[rows, None].double() * _gathered(b, here)
                out[rows] = -moved.sum(2)
            else:
                slopes = _slopes(base, x[rows, None].double() - _gathered(y, here))
                out[rows] = (slopes * (a[rows, None].double() - _gathered(b, here))).sum(2)
    return out.masked_fill_(places < 0, 0)


@operator("gram_pull_gathered", f"(Tensor x, Tensor y, Tensor places, Tensor g, str base) -> {tensors(2)}")
def _pull(x: Tensor, y: Tensor, places: Tensor, g: Tensor, base: str) -> tuple[Tensor, Tensor]:
    of_x, of_y = (torch.zeros(rows.shape, dtype=torch.float64, device=x.device) for rows in (x, y))
    with plainly(x):
        for rows in _pieces(x, places):
            here = places[rows]
            weights = g[rows].double().masked_fill(here < 0, 0)[:, :, None]
            near, a = _gathered(y, here), x[rows, None].double()
            if base == "dot":
                by_x, by_y = -weights * near, -weights * a
            else:
                by_x = weights * _slopes(base, a - near)
                by_y = -by_x
            of_x[rows] = by_x.sum(1)
            # In the order of the rows, on a GPU too: accumulating by `index_put_` sorts first.
            into = here.clamp(min=0).flatten()
            of_y.index_put_((into,), by_y.expand(*here.shape, -1).flatten(0, 1), accumulate=True)
    return of_x.to(x.dtype), of_y.to(y.dtype)


@torch.library.register_fake(_along)
def _(x: Tensor, y: Tensor, a: Tensor, b: Tensor, places: Tensor, base: str) -> Tensor:
    return x.new_empty(places.shape, dtype=torch.float64)


@torch.library.register_fake(_pull)
def _(x: Tensor, y: Tensor, places: Tensor, g: Tensor, base: str) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), y.new_empty(y.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *held, ctx.base = inputs
    ctx.save_for_backward(*held)


def _along_gradients(ctx: Any, g: Tensor) -> tuple[Any, ...]:
    x, y, a, b, places = ctx.saved_tensors
    of_a, of_b = pull(ctx.base, x, y, places, g)
    of_x, of_y = pull(ctx.base, a, b, places, g) if ctx.base != "norm" else (None, None)
    return of_x, of_y, of_a, of_b, None, None


def _pull_gradients(ctx: Any, a: Tensor, b: Tensor) -> tuple[Any, ...]:
    x, y, places, g = ctx.saved_tensors
    of_x, of_y = pull(ctx.base, a, b, places, g) if ctx.base != "norm" else (None, None)
    return of_x, of_y, None, along(ctx.base, x, y, a, b, places).to(g.dtype), None


torch.library.register_autograd(_along, _along_gradients, setup_context=_keep)
torch.library.register_autograd(_pull, _pull_gradients, setup_context=_keep)


def _slopes(base: str, differences: Tensor) -> Tensor:
    """Return the derivative of a distance by the difference."""
    return 2 * differences if base == "square" else differences.sign()


def _gathered(rows: Tensor, places: Tensor) -> Tensor:
    """Return the rows at these places, [b, k, d] float64, in memory of their own."""
    taken = rows.index_select(0, places.clamp(min=0).flatten()).view(*places.shape, rows.shape[1])
    return taken if taken.dtype == torch.float64 else taken.double()


def _pieces(x: Tensor, places: Tensor) -> Iterator[slice]:
    return tiles(len(x), max(1, NUMBERS[x.device.type] // max(places.shape[1] * x.shape[1], 1)))
