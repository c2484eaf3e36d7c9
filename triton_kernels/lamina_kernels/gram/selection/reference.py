"""The obvious form: all distances at once from differences in float64, sorted, and differentiated by torch itself."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.distances import finite, leaf_of
from lamina_kernels.gram.matrix import hidden
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.selection.blocked import Found


def matrix(p: Pairs) -> Tensor:
    """Return the distances of all pairs without the leaf's weight, [n, m] float64.

    They are infinite where a pair is left out, and where a row is not finite.
    """
    base = leaf_of(p).base
    lost_x, lost_y = ~finite(p.x.detach()), ~finite(p.y.detach())
    x, y = p.x.double().masked_fill(lost_x[:, None], 0), p.y.double().masked_fill(lost_y[:, None], 0)
    if base == "dot":
        distances = -(x[:, None] * y).sum(2)
    else:
        differences = x[:, None] - y
        distances = (differences.square() if base == "square" else differences.abs()).sum(2)
    out = lost_x[:, None] | lost_y
    left_out = hidden(p)
    return distances.masked_fill(out if left_out is None else out | left_out, torch.inf)


def nearest(p: Pairs, k: int) -> Found:
    """Return the k nearest rows of y of each row of x."""
    distances, places = matrix(p).sort(dim=1, stable=True)
    distances, places = distances[:, :k], places[:, :k]
    lost = ~finite(p.x.detach())[:, None]
    places = places.masked_fill(distances.detach().isinf() | lost, -1)
    return Found(distances.masked_fill(lost, torch.nan), places, places.new_zeros(()))
