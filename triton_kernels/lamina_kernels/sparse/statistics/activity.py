"""How often each unit is active, and the moments of its values."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.statistics.observed import demand_like, observed, sums

_ORDERS = 4


class UnitMoments(NamedTuple):
    """What `UnitActivity` knows; moments are over all rows, of which most values are 0.

    Attributes:
        rows: How many rows there were.
        counts: [M] int64, in how many the unit was active: had a value other than 0.
        density: [M] float64, counts / rows. Units of density 0 are dead.
        mean: [M] float64.
        variance: [M] float64, about the mean, over all rows.
        skewness: [M] float64, NaN where the variance is 0.
        kurtosis: [M] float64, 3 for normal numbers, NaN where the variance is 0.
    """

    rows: int
    counts: Tensor
    density: Tensor
    mean: Tensor
    variance: Tensor
    skewness: Tensor
    kurtosis: Tensor


class UnitActivity:
    """Counts and moments of units, exact for any way in which rows are cut into batches, but for rounding of sums.

    Sums of powers are kept in float64, so that the variance of values far from 0 loses the digits of their square.

    Args:
        width: The number of units, M.
        device: Where the batches are.

    Example:
        >>> import torch
        >>> state = UnitActivity(2)
        >>> state.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        >>> found = state.result()
        >>> found.density.tolist(), found.mean.tolist(), found.variance.tolist()
        ([1.0, 0.0], [2.0, 0.0], [1.0, 0.0])
    """

    def __init__(self, width: int, *, device: torch.device | str = "cpu") -> None:
        self._width = width
        self._rows = 0
        self._counts = torch.zeros(width, dtype=torch.int64, device=device)
        self._powers = torch.zeros(_ORDERS, width, dtype=torch.float64, device=device)

    def __repr__(self) -> str:
        return f"UnitActivity({self._width} units, {self._rows} rows)"

    def update(self, batch: Codes | Tensor) -> None:
        """Take codes, or a dense matrix [n, M], such as what leaves a ReLU.

        Raises:
            ValueError: Another width, or values that are not finite.
        """
        seen = observed("UnitActivity", batch, self._width)
        self._rows += seen.rows
        # Entries of one unit in one row are one value.
        place, inverse = (seen.row * self._width + seen.unit).unique(return_inverse=True)
        value, unit = sums(inverse, seen.value, len(place)), place % max(1, self._width)
        self._counts += (unit[value != 0]).bincount(minlength=self._width)
        for order in range(_ORDERS):
            self._powers[order] += sums(unit, value ** (order + 1), self._width)

    def merge(self, other: UnitActivity) -> None:
        """Add what another state saw."""
        demand_like("UnitActivity", self._width == other._width)
        self._rows += other._rows
        self._counts += other._counts
        self._powers += other._powers

    def result(self) -> UnitMoments:
        """Return counts and moments; moments of no rows are NaN."""
        first, second, third, fourth = self._powers / (self._rows or torch.nan)
        variance = (second - first**2).clamp(min=0)
        spread = variance.masked_fill(variance == 0, torch.nan)
        skewness = (third - 3 * first * second + 2 * first**3) / spread**1.5
        kurtosis = (fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4) / spread**2
        density = self._counts.double() / (self._rows or torch.nan)
        return UnitMoments(self._rows, self._counts.clone(), density, first, variance, skewness, kurtosis)
