"""The k largest of each row, where units that rarely win are helped."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.encoding.problem import Kept, Largest, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection, demand_units, demand_whole, keep_whole, per_unit


@dataclass(frozen=True, eq=False)
class KWinners(Selection):
    """Keep the k units of each row whose boosted pre-activation is largest, with the values as they are.

    The boost of a unit is exp(strength (k / M - duty)): above 1 for those that win less often than all would in turn.
    Gradients go to the winners alone.

    Attributes:
        k: How many win, from 1 to M.
        duty: [M], the share of rows in which each unit won lately; None for k / M, which boosts none.
        strength: How much a rare winner is helped; 0 for not at all.

    Source:
        Ahmad and Scheinkman, How can we be so dense?, 2019.

    Example:
        >>> import torch
        >>> from lamina_kernels.sparse import encode
        >>> select = KWinners(1, torch.tensor([1.0, 0.0]), strength=2.0)
        >>> codes = encode(torch.tensor([[1.0, 0.9]]), torch.eye(2), select=select).codes
        >>> codes.ids.tolist(), select.updated(codes, period=10).duty.round(decimals=2).tolist()
        ([[1]], [0.8999999761581421, 0.10000000149011612])
    """

    k: int
    duty: Tensor | None = None
    strength: float = 1.5

    def __post_init__(self) -> None:
        keep_whole(self, "k")
        if not self.strength >= 0:
            raise ValueError(f"KWinners: strength is {self.strength}, expected at least 0")

    def rule(self, p: Problem) -> Rule:
        """Return the largest boosted ones."""
        demand_units("KWinners", self.k, p.m)
        if self.duty is None or self.strength == 0:
            return Largest(self.k)
        duty = per_unit("KWinners", "duty", self.duty.detach(), p)
        return Largest(self.k, boost=(self.strength * (self.k / p.m - duty)).exp())

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations without the boost."""
        return kept.pre

    def updated(self, codes: Codes, *, period: int = 1000) -> KWinners:
        """Return the selection with duty cycles that count a batch's winners; a row that is not finite has none.

        Args:
            codes: What this selection chose; without a row that is finite, duty cycles stay as they are.
            period: Over how many batches duty cycles are averaged; 1 for this one alone.
        """
        period = demand_whole("KWinners", "period", period)
        values = codes.values.detach()
        won = (~values.isnan()).long()
        wins = won.new_zeros(codes.width).index_add(0, codes.ids.flatten().long(), won.flatten())
        rows = wins.sum() / self.k
        if self.duty is None:
            before = torch.full_like(wins, self.k / codes.width, dtype=torch.float32)
        else:
            before = self.duty.detach()
        share = torch.where(rows > 0, wins.to(before.dtype) / rows, before)
        return replace(self, duty=before + (share - before) / period)
