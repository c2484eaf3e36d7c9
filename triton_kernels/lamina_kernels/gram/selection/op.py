"""The k nearest rows as an operator that torch knows: differentiable as often as asked, compiled without a break."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina_kernels.gram.distances import leaf_of
from lamina_kernels.gram.pairs import COUNT, SCHEMA, Pairs, flat, unflat
from lamina_kernels.gram.selection import blocked, gathered
from lamina_kernels.gram.selection.blocked import Found
from lamina_kernels.operators import keep, kept, operator, plainly, tensors


def nearest(p: Pairs, k: int, form: str) -> Found:
    """Return the k nearest rows of y of each row of x; see `blocked.nearest`. The form is "blocked" or "triton"."""
    return Found(*_nearest(*flat(p), k, form))


@operator("gram_nearest", f"({SCHEMA}, int k, str form) -> {tensors(3)}")
def _nearest(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    p, (k, form) = unflat(arguments), arguments[COUNT:]
    with plainly(p.x):
        if form == "triton":
            from lamina_kernels.gram.selection import launch

            distances, places, repaired = launch.nearest(p, k)
        else:
            distances, places, repaired = blocked.nearest(p, k)
        return distances, places, repaired


@torch.library.register_fake(_nearest)
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    p, k = unflat(arguments), arguments[COUNT]
    distances = p.x.new_empty(p.n, k, dtype=torch.float64)
    places = p.x.new_empty(p.n, k, dtype=torch.int64)
    return distances, places, places.new_empty(())


def _gradients(ctx: Any, g: Tensor | None, *others: None) -> tuple[Any, ...]:
    inputs, (_, places, _) = kept(ctx)
    if g is None:
        return (None,) * len(inputs)
    p = unflat(inputs)
    x, y = gathered.pull(leaf_of(p).base, p.x, p.y, places, g)
    return x, y, *([None] * COUNT)


torch.library.register_autograd(_nearest, _gradients, setup_context=keep)
