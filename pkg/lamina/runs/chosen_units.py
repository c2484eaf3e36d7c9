"""The units of chosen features, of rows that are asked for by name."""

from __future__ import annotations

import math
import os
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lamina.runs.scan.cells import together
from lamina.runs.scan.indexed import Runs

if TYPE_CHECKING:
    from lamina.runs.scan import Features


_TABLE = 1 << 20
"""Features below this are looked up in a table; where there are greater ones, by halving."""


class Kept(NamedTuple):
    """All units of the features: by the names of their rows, which of the features each is of, and its value's bits."""

    rows: Runs
    columns: np.ndarray
    bits: np.ndarray


class ChosenUnits:
    """The units of some features of sparse codes.

    At first the codes of the rows that are asked for are scanned. Once these were so many that reading all units of the
    features from the indexes would have been less work, those are read and kept, and no codes are looked at any more.
    So the work is about twice the least at most, however many rows are asked for, and in whatever order.

    Args:
        codes: The long frame.
        features: Which, int64, each once; None for all.
        dtype: The type of a value, by the name that it has in the store.
    """

    def __init__(self, codes: Features, features: np.ndarray | None, dtype: str) -> None:
        self.features = features
        self._codes, self._dtype = codes, dtype
        self._left: float | None = None
        self._kept: Kept | None = None
        self._process, self._lock = os.getpid(), Lock()

    def kept(self, rows: int) -> Kept | None:
        """The units of all rows, once they are kept; asked for each time before so many rows are scanned instead."""
        # a fork has what was kept before it, and keeps nothing itself: the threads of Polars hang in it
        if self.features is not None and self._kept is None and os.getpid() == self._process:
            with self._lock:
                if self._left is None:
                    self._left = self._codes.indexes.break_even(self.features)
                self._left -= rows
                if self._left < 0 and self._kept is None:
                    self._keep(self.features)
        return self._kept

    def scanned(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The units of rows, from their codes: which of the rows, which of the features, and the bits of the value."""
        at, features, values = self._codes.at(names, self.features)
        return at, self._columns(features), self._bits(values)

    @property
    def width(self) -> int:
        """How many features."""
        return self._codes.width if self.features is None else self.features.size

    def _keep(self, features: np.ndarray) -> None:
        indexed = self._codes.indexes.units_of(features)
        if indexed is None:
            self._left = math.inf
            return
        found = list(self._codes.units.walk(None, ["row"], features, indexed))
        units = together(found) if found else self._codes.empty().with_columns(feature=0)
        columns = self._columns(units["feature"].to_numpy())
        self._kept = Kept(Runs.of(units["row"].to_numpy()), columns, self._bits(units["value"].to_numpy()))

    def _columns(self, features: np.ndarray) -> np.ndarray:
        """Where some of the features stand among those that were chosen."""
        if self.features is None:
            return features.astype(np.int32)
        order, ascending, table = self._places
        return order[np.searchsorted(ascending, features)] if table is None else table[features]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The features in order, and where each stands; and by number, unless a table of them would be long."""
        assert self.features is not None
        order = np.argsort(self.features).astype(np.int32)
        ascending = self.features[order]
        if ascending.size and ascending[-1] >= _TABLE:
            return order, ascending, None
        table = np.zeros(int(ascending[-1]) + 1 if ascending.size else 0, np.int32)
        table[ascending] = order
        return order, ascending, table

    def _bits(self, values: np.ndarray) -> np.ndarray:
        if self._dtype == "bf16":  # comes as f32, whose other half is empty
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
        return values.view(f"i{values.itemsize}")
