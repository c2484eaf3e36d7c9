"""What the indexes of sparse codes say of some features: all their units in some of the groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.runs.scan.cells import as_frame, taken

if TYPE_CHECKING:
    from lamina._core import ArrowArray


class Indexed:
    """Units of some features.

    Args:
        answered: The numbers of the groups of which these are all units.
        units: Group, position, feature and value of each, in this order.

    Attributes:
        answered: As given, int64.
        groups: The group of each unit.
        positions: Its position there.
        columns: Its feature and its value.
    """

    def __init__(self, answered: Sequence[int], units: ArrowArray | pl.DataFrame) -> None:
        self.answered = np.array(answered, dtype=np.int64)
        frame = pl.DataFrame(units)
        self.groups, self.positions = frame["group"].to_numpy(), frame["position"].to_numpy()
        self.columns = [frame["feature"], frame["value"]]

    def answers(self, groups: np.ndarray) -> np.ndarray:
        """Which of some groups they are all units of."""
        return np.isin(groups, self.answered)

    def of(self, groups: np.ndarray, positions: np.ndarray) -> pl.DataFrame:
        """The units of rows at these places: `at` (which of the rows), `feature` and `value`."""
        rows, bounds = self._rows
        keys = _key(groups, positions)
        found = np.searchsorted(rows, keys)
        here = np.flatnonzero(np.append(rows, -1)[found] == keys)
        starts = bounds[found[here]]
        counts = bounds[found[here] + 1] - starts
        at = np.repeat(here, counts)
        units = np.arange(at.size) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        return as_frame([pl.Series("at", at), *(taken(series, units) for series in self.columns)])

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that have units, as keys, and where the units of each begin."""
        keys = _key(self.groups, self.positions)
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        return keys[first], np.append(first, keys.size)


def _key(groups: np.ndarray, positions: np.ndarray) -> np.ndarray:
    # row pointers have 32 bits, and so has a position
    return groups.astype(np.int64) << 32 | positions
