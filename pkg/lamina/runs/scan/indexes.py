"""The indexes of sparse codes by feature: what they say, when they are asked, and a word where they cannot be used."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lamina import _core
from lamina.errors import LaminaWarning
from lamina.runs import indexing
from lamina.runs.scan.indexed import Indexed
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    from pathlib import Path

    from lamina._core import Snapshot

_SHARE = 8
"""Where more than one in so many units is wanted, codes are scanned: putting in order what indexes say may be slower.

Measured with 65,536 features and 64 of them active a row: at one in 8 it is quicker yet, at one in 4 as quick."""
_MOST_FOUND = 1 << 23
"""The most units that are taken from indexes at once, some 250 MB; a scan takes 60 MB whatever it finds."""
_ALONE = 1 << 15
"""Units that one thread finds sooner than a helper begins."""
_WHY = {"missing": "is missing", "stale": "is stale", "damaged": "is damaged", "newer": "was written by a newer Lamina"}
"""What is told of an index that a question misses."""


class Expected(NamedTuple):
    """How many units there are among so many of so many rows, as far as there are indexes; and the other rows."""

    found: int
    units: int
    rows: int
    unknown: int

    @property
    def are_few(self) -> bool:
        """Whether reading them is less than scanning all, and fits memory."""
        return self.found <= _MOST_FOUND and _SHARE * self.found <= self.units


class Indexes:
    """The indexes of a site.

    Args:
        snapshot: Where they lie.
        path: The run's folder.
        site: The site.
        groups: The numbers of the groups that hold it, ascending.
    """

    def __init__(self, snapshot: Snapshot, path: Path, site: str, groups: Sequence[int]) -> None:
        self._snapshot, self._path, self._site = snapshot, path, site
        self._groups = np.array(groups, dtype=np.int64)
        self._told: set[str] = set()

    def units_of(self, features: np.ndarray) -> Indexed | None:
        """All units of some features; None where the codes are to be scanned."""
        expected = self._expected(features)
        if not expected.are_few:
            return None
        threads = available_threads() if expected.found > _ALONE else 1
        found = Indexed(*_core.indexed_units(self._snapshot, self._site, features.view(np.uint8), threads))
        self.tell(found.answered)
        return found if found.answered.size else None

    def strongest(self, feature: int, k: int) -> tuple[pl.DataFrame, list[int]]:
        """The k strongest units of a feature, the greatest first: group, position, row, value.

        NaN comes last, and of equal values the row that was named first. Of the groups whose numbers stand beside.
        """
        groups, batch = _core.top_units(self._snapshot, self._site, feature, k)
        self.tell(groups)
        return pl.DataFrame(batch), groups

    def are_all(self, groups: Sequence[int] | np.ndarray) -> bool:
        """Whether groups that indexes answered for, ascending, are all that show the site."""
        return np.isin(self._groups, groups, assume_unique=True).all().item()

    def break_even(self, features: np.ndarray) -> float:
        """How many rows may be scanned before reading all units of some features by the indexes would be less."""
        expected = self._expected(features)
        if not expected.units or not expected.are_few:
            return math.inf
        return expected.unknown + _SHARE * expected.found / expected.units * expected.rows

    def _expected(self, features: np.ndarray) -> Expected:
        """What indexes hold of some features."""
        segments = _core.feature_indexes(self._snapshot, self._site)
        known = [segment for segment in segments if segment[-1] == "ready"]
        rows, units = sum(rows for _, rows, *_ in known), sum(units for _, _, units, _ in known)
        unknown = sum(rows for _, rows, *_ in segments) - rows
        found = _core.indexed_count(self._snapshot, self._site, features.view(np.uint8))
        return Expected(found, units, rows, unknown)

    def tell(self, answered: Sequence[int] | np.ndarray = ()) -> None:
        """Warns, once of each, of indexes that are missed, unless all groups were answered for.

        Those that are damaged, and of large segments those that are missing, are built in the background.
        """
        if self.are_all(answered):
            return
        segments = _core.feature_indexes(self._snapshot, self._site)
        states = {
            file: state
            for file, _, units, state in segments
            if file not in self._told and (state == "newer" or indexing.is_wanted(units, state))
        }
        self._told.update(states)
        for file, how in indexing.on_demand(self._path, self._site, states).items():
            text = f"the index of {self._site!r} in {file} {_WHY[states[file]]}: codes are scanned; {how}"
            warnings.warn(text, LaminaWarning, stacklevel=2)
