"""The k largest of each row: of all units, of each of several runs of them, or by their share of the row's sum."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Kept, Largest, Problem, Rule
from lamina_kernels.sparse.encoding.selection import (
    Chosen,
    Selection,
    csr,
    demand_units,
    keep_whole,
    rectified,
)


@dataclass(frozen=True)
class TopK(Selection):
    """Keep the k largest pre-activations of each row; of equal ones those of the first units.

    Attributes:
        k: How many, from 1 to M.
        relu: Whether the values are those after a ReLU: the few that are negative become 0, and get no gradient.

    Source:
        Gao et al., Scaling and evaluating sparse autoencoders, 2024.

    Example:
        >>> TopK(32)
        TopK(k=32, relu=True)
    """

    k: int
    relu: bool = True

    def __post_init__(self) -> None:
        keep_whole(self, "k")

    def rule(self, p: Problem) -> Rule:
        """Return the k largest of all units."""
        demand_units("TopK", self.k, p.m)
        return Largest(self.k)

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations after the ReLU."""
        return rectified(kept.pre, self.relu)


@dataclass(frozen=True)
class GroupTopK(Selection):
    """Keep the k largest of each of several runs of units of equal length: k groups in each row.

    With k = 1 it is the group maximum, which chooses without a sort.

    Attributes:
        k: How many of each run.
        groups: The number of runs; it divides M.
        relu: As of `TopK`.

    Example:
        >>> GroupTopK(1, groups=32)
        GroupTopK(k=1, groups=32, relu=True)
    """

    k: int
    groups: int
    relu: bool = True

    def __post_init__(self) -> None:
        keep_whole(self, "k", "groups")

    def rule(self, p: Problem) -> Rule:
        """Return the k largest of each run."""
        if p.m % self.groups:
            raise ValueError(f"GroupTopK: {p.m} units do not come apart into {self.groups} runs of equal length")
        demand_units("GroupTopK", self.k, p.m // self.groups)
        return Largest(self.k, self.groups)

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations after the ReLU."""
        return rectified(kept.pre, self.relu)


@dataclass(frozen=True)
class MassShare(Selection):
    """Keep the fewest largest units of each row that hold a share of the sum of its positive pre-activations.

    Attributes:
        share: The share, above 0, at most 1.
        most: How many are kept at most, though they hold less.

    Example:
        >>> MassShare(0.9, most=64)
        MassShare(share=0.9, most=64)
    """

    share: float
    most: int

    def __post_init__(self) -> None:
        keep_whole(self, "most")
        if not 0 < self.share <= 1:
            raise ValueError(f"MassShare: share is {self.share}, expected more than 0 and at most 1")

    def rule(self, p: Problem) -> Rule:
        """Return the largest of all units, and the sum of each row."""
        demand_units("MassShare", self.most, p.m)
        return Largest(self.most, mass=True)

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations, all of which are positive."""
        return kept.pre

    def chosen(self, p: Problem, kept: Kept) -> Chosen:
        """Return the first that hold the share, in the order of their size."""
        mass, order = kept.pre.detach().relu().sort(dim=1, descending=True, stable=True)
        before = mass.cumsum(1) - mass
        # What is NaN stays.
        enough = (before >= self.share * kept.mass[:, None]) | (mass <= 0)
        stays = ~enough.gather(1, order.argsort(dim=1))
        return super().chosen(p, csr(kept, stays))
