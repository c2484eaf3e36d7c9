"""Gradients of gradients of the sums of any two kernels: one tile at a time, differentiated twice by torch itself.

What rows are moved by and values are centered by are constants here as they are there: HSIC does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from lamina_kernels.gram.dependence import features
from lamina_kernels.gram.dependence.blocked import Found, Panel, Walk, parts
from lamina_kernels.gram.dependence.layers import Layers
from lamina_kernels.gram.matrix import values
from lamina_kernels.gram.sums.blocked_second import block_of, twice


def second(
    layers: Layers, centers: Tensor, g: Found, given: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients of sum <given, gradients of the sums>, None for what is not needed.

    Args:
        layers: The kernels.
        centers: [k, n], see `blocked.centers`; unused for features.
        g: What the sums' gradients are made of.
        given: The gradients of those of each kernel's rows, and behind these of its parameters; None where none came.
        needed: Whether those by each kernel's rows, by its parameters, and by g are.

    Returns:
        By these.
    """
    count, dtype = len(layers), layers.dtype
    held = [*(p.x for p in layers.pairs), *(p.parameters for p in layers.pairs), *g]
    dtypes = [dtype] * (2 * count) + [torch.float64] * len(g)
    asked = [place for place, is_needed in enumerate(needed) if is_needed]
    found = {i: torch.zeros(held[i].shape, dtype=dtypes[i], device=held[i].device) for i in asked}
    followed = {*asked, *(place for place, x in enumerate(given) if x is not None)}
    for spans, whole_of in _pieces(layers, centers):
        owners = [*(list(range(count)) * len(spans)), *range(count, len(held))]
        places = [span for span in spans for _ in range(count)] + [slice(None)] * (count + len(g))
        pairs = list(zip(owners, places, strict=True))
        part = [
            held[owner][place].detach().to(dtypes[owner]).requires_grad_(owner in followed) for owner, place in pairs
        ]
        inner, by = pairs[: -len(g)], [i for i, (owner, _) in enumerate(pairs) if owner in found]
        down = [None if (x := given[owner]) is None else x[place].to(dtype) for owner, place in inner]
        with torch.enable_grad():
            each = twice(whole_of(part), part[: len(inner)], down, [part[i] for i in by])
        for i, x in zip(by, each, strict=True):
            owner, place = pairs[i]
            if x is not None:
                found[owner][place] += x
    return [found[i].to(like.dtype) if i in found else None for i, like in enumerate(held)]


def _pieces(layers: Layers, centers: Tensor) -> Iterator[tuple[list[slice], Callable[[Sequence[Tensor]], Tensor]]]:
    """Yield the rows that a piece is made of, and what returns its sum <g, sums>; features are one piece."""
    if layers.features:
        yield [slice(None)], partial(_of_features, layers)
        return
    walk = Walk(layers, centers, block_of(layers.pairs))
    for panel, other in walk.tiles():
        yield [panel.rows] if panel is other else [panel.rows, other.rows], partial(_of_tile, walk, panel, other)


def _of_features(layers: Layers, part: Sequence[Tensor]) -> Tensor:
    """Return sum <g, sums>, of `features`."""
    g, means = Found(*part[-len(Found._fields) :]), features.Centered(layers).means
    rows = [x - mean for x, mean in zip(part, means, strict=False)]
    norms = torch.stack([x.square().sum(1) for x in rows]).double() * (not layers.diagonal)
    whole = torch.stack([x @ x.sum(0) for x in rows]).double() - norms
    adds = [(g.rows * whole).sum()]
    for a, b in layers.compared:
        weight = g.pairs[a, b] + g.pairs[b, a] if a != b else g.pairs[a, a]
        adds.append(weight * ((rows[a].T @ rows[b]).double().square().sum() - norms[a] @ norms[b]))
    return torch.stack(adds).sum()


def _of_tile(walk: Walk, panel: Panel, other: Panel, part: Sequence[Tensor]) -> Tensor:
    """Return what a tile adds to it."""
    layers, g = walk.layers, Found(*part[-len(Found._fields) :])
    count, parameters = len(layers), part[-len(g) - len(layers) : -len(g)]
    x, y = part[:count], part[:count] if panel is other else part[count : 2 * count]
    itself = torch.eye(len(x[0]), dtype=torch.bool, device=x[0].device) if panel is other else None
    made = zip(layers.pairs, x, y, parameters, strict=True)
    tiles = walk.centered(torch.stack([values(p.tree, a, b, each, itself) for p, a, b, each in made]), other)
    adds = parts(walk, panel, other, tiles)
    return torch.stack([(getattr(g, name)[place] * more).sum() for name, place, more in adds]).sum()
