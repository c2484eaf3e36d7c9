"""Quantiles of each unit's values to a relative accuracy, from counts of logarithmic bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.statistics.observed import demand_like, observed


class QuantileSketch:
    """Counts of positive values by bins whose borders grow by a factor: quantiles are off by at most `accuracy`.

    Counts add up, so that the result is the same for any cut into batches and any order. Memory: M times the number of
    bins, ln(most / least) / ln((1 + accuracy) / (1 - accuracy)), 8 bytes each.

    Args:
        width: The number of units, M.
        accuracy: The largest relative error of a quantile, between 0 and 1.
        least: Values up to it count as 0.
        most: Values above it count as this.
        device: Where the batches are.

    Raises:
        ValueError: An accuracy or a range that is none.

    Source:
        Masson, Rim and Lee, DDSketch, 2019.

    Example:
        >>> import torch
        >>> state = QuantileSketch(1, accuracy=0.01)
        >>> state.update(torch.arange(1.0, 102.0)[:, None])
        >>> abs(state.result([0.5]).item() / 51 - 1) < 0.01
        True
    """

    def __init__(
        self,
        width: int,
        *,
        accuracy: float = 0.05,
        least: float = 1e-4,
        most: float = 1e4,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 < accuracy < 1:
            raise ValueError(f"QuantileSketch: accuracy is {accuracy}, expected a number between 0 and 1")
        if not 0 < least < most < math.inf:
            raise ValueError(f"QuantileSketch: values from {least} to {most}, expected 0 < least < most")
        self._options = (width, accuracy, least, most)
        self._growth = math.log((1 + accuracy) / (1 - accuracy))
        bins = math.ceil(math.log(most / least) / self._growth)
        self._counts = torch.zeros(width, bins, dtype=torch.int64, device=device)
        self._rows = 0

    def __repr__(self) -> str:
        return f"QuantileSketch({self._options[0]} units, {self._rows} rows, within {self._options[1]:.0%})"

    def update(self, batch: Codes | Tensor) -> None:
        """Take codes, or a dense matrix [n, M]; values below 0 count as 0.

        Raises:
            ValueError: Another width, values that are not finite.
        """
        width, _, least, _ = self._options
        seen = observed("QuantileSketch", batch, width)
        self._rows += seen.rows
        active = seen.value > least
        bins = self._counts.shape[1]
        at = ((seen.value[active] / least).log() / self._growth).ceil().long().sub(1).clamp(0, bins - 1)
        flat = (seen.unit[active] * bins + at).bincount(minlength=self._counts.numel())
        self._counts += flat.view_as(self._counts)

    def merge(self, other: QuantileSketch) -> None:
        """Add what another state saw."""
        demand_like("QuantileSketch", self._options == other._options)
        self._rows += other._rows
        self._counts += other._counts

    def result(self, q: list[float], *, active: bool = False) -> Tensor:
        """Return quantiles of each unit, [len(q), M] float64.

        Args:
            q: Shares from 0 to 1: the value that has that share of the others, but for the last, at or below it.
            active: Whether rows in which the unit is 0 are left out; NaN for units that never were active.
        """
        _, _, least, _ = self._options
        cumulative = self._counts.cumsum(1)
        counts = cumulative[:, -1]
        zeros = torch.zeros_like(counts) if active else self._rows - counts
        whole = counts + zeros
        found = []
        for share in q:
            # The rank counts from 0.
            rank = (share * (whole - 1).clamp(min=0)).floor().long() - zeros
            at = torch.searchsorted(cumulative, rank.clamp(min=0)[:, None], right=True)[:, 0]
            # The middle of a bin by which both of its borders are off equally.
            value = least * torch.exp(self._growth * (at + 1).double()) * 2 / (1 + math.exp(self._growth))
            found.append(value.masked_fill(rank < 0, 0).masked_fill(whole == 0, torch.nan))
        return torch.stack(found)
