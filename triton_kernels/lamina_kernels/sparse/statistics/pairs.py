"""Which units are active together, and how their values are correlated, of one model or of two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.statistics.observed import Observed, demand_like, observed, sums

PAIRS = 2**20
"""Pairs of entries in memory at a time."""


class Coactivated(NamedTuple):
    """What `Coactivation` knows.

    Attributes:
        rows: How many rows there were.
        counts: [M, M'] int64, in how many rows both units were active.
        correlation: [M, M'] float64, Pearson's, over all rows; NaN where a unit's variance is 0.
    """

    rows: int
    counts: Tensor
    correlation: Tensor


class Coactivation:
    """Counts and correlations of all pairs of units, from the pairs of entries that share a row.

    The matrices [M, M'] are the result and are held: 16 bytes a pair of units. Rows are visited in tiles, and n k k'
    pairs of entries cost what n M M' products would not.

    Args:
        width: The number of units, M.
        other: The number of units of the second model; None for one model with itself.
        device: Where the batches are.

    Example:
        >>> import torch
        >>> state = Coactivation(3)
        >>> state.update(torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]]))
        >>> found = state.result()
        >>> found.counts.tolist(), round(found.correlation[0, 1].item(), 6)
        ([[2, 2, 0], [2, 2, 0], [0, 0, 1]], 1.0)
    """

    def __init__(self, width: int, other: int | None = None, *, device: torch.device | str = "cpu") -> None:
        self._same = other is None
        self._widths = (width, width if other is None else other)
        self._rows = 0
        self._counts = torch.zeros(self._widths, dtype=torch.int64, device=device)
        self._products = torch.zeros(self._widths, dtype=torch.float64, device=device)
        # Sums of values and of their squares, of each model.
        self._moments = [torch.zeros(2, some, dtype=torch.float64, device=device) for some in self._widths]

    def __repr__(self) -> str:
        return f"Coactivation({self._widths[0]} x {self._widths[1]} units, {self._rows} rows)"

    def update(self, batch: Codes | Tensor, other: Codes | Tensor | None = None) -> None:
        """Take the codes of some rows, and those of the second model for the same rows; or dense matrices.

        Raises:
            ValueError: Other widths, numbers of rows that differ, values that are not finite; entries of one unit in
            one
                row, which `Codes.merged` adds up.
        """
        if (other is None) != self._same:
            raise ValueError(f"Coactivation: takes {'one batch' if self._same else 'two batches'} at a time")
        left = _unique(observed("Coactivation", batch, self._widths[0]), self._widths[0])
        right = left if other is None else _unique(observed("Coactivation", other, self._widths[1]), self._widths[1])
        if left.rows != right.rows:
            raise ValueError(f"Coactivation: the batches have {left.rows} and {right.rows} rows, they must agree")
        self._rows += left.rows
        for moments, seen, width in zip(self._moments, (left, right), self._widths, strict=True):
            moments[0] += sums(seen.unit, seen.value, width)
            moments[1] += sums(seen.unit, seen.value**2, width)
        for a, b in _pairs(left, right):
            at = left.unit[a] * self._widths[1] + right.unit[b]
            self._counts.view(-1).index_add_(0, at, torch.ones_like(at))
            self._products.view(-1).index_add_(0, at, left.value[a] * right.value[b])

    def merge(self, other: Coactivation) -> None:
        """Add what another state saw."""
        demand_like("Coactivation", (self._widths, self._same) == (other._widths, other._same))
        self._rows += other._rows
        self._counts += other._counts
        self._products += other._products
        for mine, theirs in zip(self._moments, other._moments, strict=True):
            mine += theirs

    def result(self) -> Coactivated:
        """Return counts and correlations."""
        n = self._rows or torch.nan
        means, deviations = [], []
        for first, second in self._moments:
            mean = first / n
            # What is left of a constant after rounding is no variance.
            variance = second / n - mean**2
            constant = variance <= 1e-12 * second / n
            means.append(mean)
            deviations.append(variance.masked_fill(constant, torch.nan).sqrt())
        correlation = (self._products / n).sub_(means[0][:, None] * means[1])
        correlation /= deviations[0][:, None]
        correlation /= deviations[1]
        return Coactivated(self._rows, self._counts.clone(), correlation)


def _unique(seen: Observed, width: int) -> Observed:
    place = (seen.row * width + seen.unit).sort().values
    if bool((place[1:] == place[:-1]).any()):
        raise ValueError("Coactivation: a unit has two entries in one row, merge the codes first")
    return seen


def _pairs(left: Observed, right: Observed) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the entries of both sides that share a row, in tiles of rows."""
    counts = [seen.row.bincount(minlength=seen.rows) for seen in (left, right)]
    ends = [count.cumsum(0) for count in counts]
    pairs = (counts[0] * counts[1]).cumsum(0)
    row = 0
    while row < left.rows:
        done = int(pairs[row - 1]) if row else 0
        last = max(row + 1, int(torch.searchsorted(pairs, done + PAIRS, right=True)))
        first = int(ends[0][row - 1]) if row else 0
        a = torch.arange(first, int(ends[0][last - 1]), device=pairs.device)
        of_row = left.row[a]
        partners = counts[1][of_row]
        begin = (ends[1] - counts[1])[of_row] - (partners.cumsum(0) - partners)
        total = int(partners.sum())
        b = torch.arange(total, device=pairs.device) + begin.repeat_interleave(partners, output_size=total)
        yield a.repeat_interleave(partners, output_size=total), b
        row = last
