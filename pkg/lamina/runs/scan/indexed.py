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
    """Units of some features, in order of group, of place there and of feature.

    Args:
        answered: The numbers of the groups of which these are all units, ascending.
        sizes: How many units each of these has.
        units: The name of the row, feature and value of each. A name is in one group alone: what counts of a row is.

    Attributes:
        answered: As given, int64.
        rows: The row of each unit.
        columns: Its feature and its value.
    """

    def __init__(
        self, answered: Sequence[int], sizes: Sequence[int] | np.ndarray, units: ArrowArray | pl.DataFrame
    ) -> None:
        self.answered = np.array(answered, dtype=np.int64)
        self._bounds = np.append(0, np.cumsum(sizes, dtype=np.int64))
        frame = pl.DataFrame(units)
        self.rows = frame["row"].to_numpy()
        self.columns = [frame["feature"], frame["value"]]

    def answers(self, groups: np.ndarray) -> np.ndarray:
        """Which of some groups they are all units of."""
        if not self.answered.size:
            return np.zeros(groups.size, dtype=bool)
        at = np.minimum(np.searchsorted(self.answered, groups), self.answered.size - 1)
        return self.answered[at] == groups

    def between(self, first: int, last: int) -> slice:
        """The units of the groups from one to another that answered."""
        low, high = np.searchsorted(self.answered, (first, last + 1))
        return slice(int(self._bounds[low]), int(self._bounds[high]))

    def of(self, rows: np.ndarray) -> pl.DataFrame:
        """The units of rows of these names: `at` (which of the rows), `feature` and `value`."""
        order, runs = self._by_row
        at, units = runs.find(rows)
        return as_frame([pl.Series("at", at), *(taken(series, order[units]) for series in self.columns)])

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, Runs]:
        # a feature has one unit in a row, and they ascend: what is stable keeps them so
        order = np.argsort(self.rows, kind="stable")
        return order, Runs.of(self.rows[order])


def spread(starts: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of some ranges, range by range: which of the ranges, and the number."""
    sizes = stops - starts
    which = np.repeat(np.arange(sizes.size), sizes)
    return which, np.arange(which.size) + np.repeat(stops - np.cumsum(sizes), sizes)


class Runs:
    """Entries that stand key by key, found by their keys.

    Args:
        keys: int64, ascending, each once.
        starts: The first entry of each key.
        stops: The entry behind its last.
    """

    def __init__(self, keys: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        self._keys, self._starts, self._stops = keys, starts, stops

    @staticmethod
    def of(keys: np.ndarray) -> Runs:
        """Of entries that have these keys, ascending."""
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        return Runs(keys[starts], starts, np.append(starts[1:], keys.size))

    def find(self, keys: np.ndarray | range) -> tuple[np.ndarray, np.ndarray]:
        """The entries of some keys, key by key: which of the keys, and which entry."""
        here, found = self._met(keys)
        which, entries = spread(self._starts[found], self._stops[found])
        return here[which], entries

    def numbered(self, keys: np.ndarray) -> Runs:
        """The same entries by the places of their keys among some, which may come in any order, and several times."""
        here, found = self._met(keys)
        return Runs(here, self._starts[found], self._stops[found])

    def _met(self, keys: np.ndarray | range) -> tuple[np.ndarray, np.ndarray]:
        """Which of some keys are here, and where."""
        if isinstance(keys, range):
            low, high = np.searchsorted(self._keys, (keys.start, keys.stop))
            return self._keys[low:high] - keys.start, np.arange(low, high)
        if not (self._keys.size and keys.size):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        # what is less is looked up in what is more
        if keys.size > self._keys.size and (keys[1:] > keys[:-1]).all():
            here = np.minimum(np.searchsorted(keys, self._keys), keys.size - 1)
            found = np.flatnonzero(keys[here] == self._keys)
            return here[found], found
        found = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        here = np.flatnonzero(self._keys[found] == keys)
        return here, found[here]
