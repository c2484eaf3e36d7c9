"""Radii and edges of bins, and how exact distances and bounds of distances compare with them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.distances import Measure, leaf_of
from lamina_kernels.gram.pairs import Pairs

# Roots and squares of thresholds are rounded: what is nearer to one than this part of it is compared as told.
_ROUNDING = 1e-14
# Numbers of double precision between the square of a threshold and the distance that is told to be the threshold.
_STEPS = 4


class Thresholds(NamedTuple):
    """Thresholds in units of the distance, as the face tells it.

    Attributes:
        values: float64, one a row or the edges of bins, ascending.
        root: Whether the distance is the root of what pairs have.
        weight: A number in float64, the leaf's.
        strict: Whether a pair at the threshold is beyond it.
    """

    values: Tensor
    root: bool
    weight: Tensor
    strict: bool = False

    def limits(self) -> tuple[Tensor, Tensor]:
        """Return up to what pairs are below their threshold for certain, and above what they are beyond it."""
        squares = self.values * self.values.abs() if self.root else self.values
        limits = (squares / self.weight).clamp(-1e300, 1e300)
        reach = limits.abs() * _ROUNDING
        return limits - reach, limits + reach

    def largest(self, *, strict: bool) -> Tensor:
        """Return the largest distance that is told to lie within each threshold, float64; -infinity where none is."""
        squares = self.values * self.values.abs() if self.root else self.values
        middle = squares / self.weight
        candidates = [middle]
        for towards in (-torch.inf, torch.inf):
            nearby = middle
            for _ in range(_STEPS):
                nearby = torch.nextafter(nearby, torch.full_like(nearby, towards))
                candidates.append(nearby)
        each = torch.stack(candidates)
        told = self.told(each)
        return each.where(told < self.values if strict else told <= self.values, -torch.inf).amax(0)

    def within(self, distances: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return which pairs lie within the radius of their rows (None for each row in turn, [n, m])."""
        told = self.told(distances)
        radii = self.values[:, None] if rows is None else self.values[rows]
        return told < radii if self.strict else told <= radii

    def below(self, distances: Tensor) -> Tensor:
        """Return how many edges are at or below each distance; a distance on the last edge lies below that."""
        told = self.told(distances)
        return torch.bucketize(told, self.values, right=True) - (told == self.values[-1]).long()

    def told(self, distances: Tensor) -> Tensor:
        """Return distances as the face tells them."""
        distances = distances * self.weight
        return distances.sqrt() if self.root else distances


def thresholds(p: Pairs, values: Tensor, distance: Measure, *, strict: bool = False) -> Thresholds:
    """Return thresholds for these pairs."""
    return Thresholds(values, distance == "euclidean", p.parameters[leaf_of(p).place, 0], strict)
