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
        features: Which, int64, each once.
        dtype: The type of a value, by the name that it has in the store.
    """

    def __init__(self, codes: Features, features: np.ndarray, dtype: str) -> None:
        self.features = features
        self._codes, self._dtype = codes, dtype
        self._left: float | None = None
        self._kept: Kept | None = None
        self._process, self._lock = os.getpid(), Lock()

    def kept(self, rows: int) -> Kept | None:
        """The units of all rows, once they are kept; asked for each time before so many rows are scanned instead."""
        # a fork has what was kept before it, and keeps nothing itself: the threads of Polars hang in it
        if self._kept is None and os.getpid() == self._process:
            with self._lock:
                if self._left is None:
                    self._left = self._codes.break_even(self.features)
                self._left -= rows
                if self._left < 0 and self._kept is None:
                    self._keep()
        return self._kept

    def scanned(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The units of rows, from their codes: which of the rows, which of the features, and the bits of the value."""
        at, features, values = self._codes.at(names, self.features)
        return at, self._columns[features], self._bits(values)

    def _keep(self) -> None:
        indexed = self._codes.indexed(self.features)
        if indexed is None:
            self._left = math.inf
            return
        found = list(self._codes.walk(None, ["row"], self.features, indexed))
        units = together(found) if found else self._codes.empty().with_columns(feature=0)
        columns = self._columns[units["feature"].to_numpy()]
        self._kept = Kept(Runs.of(units["row"].to_numpy()), columns, self._bits(units["value"].to_numpy()))

    @cached_property
    def _columns(self) -> np.ndarray:
        """Where each feature stands among those that were chosen."""
        columns = np.zeros(self._codes.width, dtype=np.int32)
        columns[self.features] = np.arange(self.features.size)
        return columns

    def _bits(self, values: np.ndarray) -> np.ndarray:
        if self._dtype == "bf16":  # comes as f32, whose other half is empty
            return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)
        return values.view(f"i{values.itemsize}")
