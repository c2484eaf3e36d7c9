"""The obvious form of counts: all distances at once, from differences in float64."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lamina_kernels.gram.counting.thresholds import Thresholds
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.selection.reference import matrix


def count(p: Pairs, radii: Thresholds) -> Tensor:
    """Return how many rows of y lie within the radius of each row of x, [n] int64."""
    distances = matrix(p)
    return (radii.within(distances) & distances.isfinite()).sum(1)


def histogram(p: Pairs, edges: Thresholds) -> Tensor:
    """Return how many pairs lie in each bin, [edges - 1] int64."""
    told = edges.told(matrix(p))
    told, values = told[told.isfinite()], edges.values
    bins = [(told >= low) & (told < high) for low, high in itertools.pairwise(values)]
    bins[-1] |= told == values[-1]
    return torch.stack([inside.sum() for inside in bins])
