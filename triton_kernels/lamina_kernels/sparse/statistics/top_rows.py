"""The rows on which each unit is most active."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.statistics.observed import demand_like, observed


class MostActive(NamedTuple):
    """What `TopRows` knows.

    Attributes:
        values: [M, most] float64, descending; 0 where a unit was active on fewer rows.
        rows: [M, most] int64, the names of the rows, those of one value ascending; -1 where there is none.
    """

    values: Tensor
    rows: Tensor


class TopRows:
    """The rows with the largest positive values of each unit; the same for any cut into batches and any order.

    Args:
        width: The number of units, M.
        most: How many rows of each.
        device: Where the batches are.

    Example:
        >>> import torch
        >>> state = TopRows(2, most=2)
        >>> state.update(torch.tensor([[1.0, 0.0], [5.0, 0.0], [3.0, 2.0]]))
        >>> state.result().rows.tolist()
        [[1, 2], [2, -1]]
    """

    def __init__(self, width: int, most: int, *, device: torch.device | str = "cpu") -> None:
        if most < 1:
            raise ValueError(f"TopRows: most is {most}, expected at least 1")
        self._width, self._most = width, most
        self._seen = 0
        self._units = torch.empty(0, dtype=torch.int64, device=device)
        self._rows = torch.empty(0, dtype=torch.int64, device=device)
        self._values = torch.empty(0, dtype=torch.float64, device=device)

    def __repr__(self) -> str:
        return f"TopRows({self._width} units, the {self._most} greatest of {self._seen} rows)"

    def update(self, batch: Codes | Tensor, rows: Tensor | None = None) -> None:
        """Take the codes of some rows, or a dense matrix [n, M].

        Args:
            batch: The codes; of two entries of one unit in one row each stands for itself.
            rows: [n] int64, the names of the rows; None counts on from the last batch.

        Raises:
            ValueError: Another width, other than n names, values that are not finite.
        """
        seen = observed("TopRows", batch, self._width)
        if rows is None:
            rows = torch.arange(self._seen, self._seen + seen.rows, device=seen.row.device)
        if rows.shape != (seen.rows,) or rows.dtype != torch.int64:
            raise ValueError(f"TopRows: rows is {rows.dtype} {list(rows.shape)}, expected int64 [{seen.rows}]")
        self._seen += seen.rows
        active = seen.value > 0
        self._take(seen.unit[active], rows[seen.row[active]], seen.value[active])

    def merge(self, other: TopRows) -> None:
        """Take what another state saw; rows are to be named, or both would count from 0."""
        demand_like("TopRows", (self._width, self._most) == (other._width, other._most))
        self._seen += other._seen
        self._take(other._units, other._rows, other._values)

    def result(self) -> MostActive:
        """Return values and rows."""
        values = self._values.new_zeros(self._width, self._most)
        rows = torch.full_like(values, -1, dtype=torch.int64)
        rank = self._ranks(self._units)
        values[self._units, rank] = self._values
        rows[self._units, rank] = self._rows
        return MostActive(values, rows)

    def _take(self, units: Tensor, rows: Tensor, values: Tensor) -> None:
        units, rows = torch.cat([self._units, units]), torch.cat([self._rows, rows])
        values = torch.cat([self._values, values])
        # By unit, then by value, then by row: the last sort is the first key.
        order = rows.argsort(stable=True)
        order = order[values[order].argsort(descending=True, stable=True)]
        order = order[units[order].argsort(stable=True)]
        kept = order[self._ranks(units[order]) < self._most]
        self._units, self._rows, self._values = units[kept], rows[kept], values[kept]

    def _ranks(self, units: Tensor) -> Tensor:
        """Return how many entries of its unit stand before each, for units in ascending order."""
        counts = units.bincount(minlength=self._width)
        return torch.arange(len(units), device=units.device) - (counts.cumsum(0) - counts)[units]
