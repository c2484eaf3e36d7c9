"""All row groups of a snapshot in columns: what is asked of each of a hundred thousand is asked of all at once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina import _core
from lamina.runs.scan import Group
from lamina.runs.steps import Steps, has_step

if TYPE_CHECKING:
    from lamina._core import Snapshot


class GroupTable:
    """The row groups in order of their first row, without those that are hidden.

    Which groups is always said by a mask, a boolean a group.

    Attributes:
        attached: Which hold sites of rows that other groups made.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        batch, sets = _core.group_table(snapshot)
        frame = pl.DataFrame(batch)
        self._sets = [frozenset(names) for names in sets]
        self._set_of = frame["sites"].to_numpy()
        self._least = frame["least_step"].fill_null(0).to_numpy()
        alike = (frame["least_step"] == frame["greatest_step"]).fill_null(False).to_numpy().astype(bool)
        known = frame["least_step"].is_not_null().to_numpy()
        self.attached = frame["attached"].to_numpy() == 1
        # groups of one step, and those of several, whose steps must be read
        self._single = alike & ~self.attached
        self._mixed = known & ~alike & ~self.attached

    def __len__(self) -> int:
        return len(self._set_of)

    def with_sites(self, sites: Iterable[str]) -> np.ndarray:
        """The groups that hold one of the sites."""
        sites = frozenset(sites)
        return np.array([not sites.isdisjoint(names) for names in self._sets], dtype=bool)[self._set_of]

    def sites(self, groups: np.ndarray) -> set[str]:
        """The sites that groups hold."""
        return set().union(*(self._sets[number] for number in np.unique(self._set_of[groups]).tolist()))

    def steps(self, groups: np.ndarray, sites: Iterable[str] | None = None) -> set[int]:
        """The steps of the groups' rows, or of those that show one of the sites. Attached groups know none."""
        mixed = np.flatnonzero(groups & self._mixed).tolist()
        if sites is None:
            several = [self._several[number] for number in mixed]
        else:
            wanted = frozenset(sites)
            several = [self._steps_of(number, wanted) for number in mixed]
        return set(np.unique(self._least[groups & self._single]).tolist()).union(*several)

    def with_steps(self, wanted: Steps) -> np.ndarray:
        """The groups of which some row has such a step. Attached groups know none."""
        found = np.zeros(len(self), dtype=bool)
        steps, which = np.unique(self._least[self._single], return_inverse=True)
        found[self._single] = np.array([has_step(wanted, step) for step in steps.tolist()], dtype=bool)[which]
        for number, several in self._several.items():
            found[number] = any(has_step(wanted, step) for step in several)
        return found

    @cached_property
    def _several(self) -> dict[int, frozenset[int]]:
        """The steps of each group that has several; they are read."""
        return {number: self._read(number) for number in np.flatnonzero(self._mixed).tolist()}

    def _steps_of(self, number: int, sites: frozenset[str]) -> frozenset[int]:
        """The steps of the rows of a group that show one of the sites."""
        hidden = np.ones(1, bool)
        for site in sites & self._sets[self._set_of[number]]:
            mask = self._snapshot.hidden(number, site)
            if mask is None:
                return self._several[number]
            hidden = hidden & np.frombuffer(mask, bool)
        return self._read(number, hidden)

    def _read(self, number: int, hidden: np.ndarray | None = None) -> frozenset[int]:
        if hidden is None and (mask := self._snapshot.hidden(number)) is not None:
            hidden = np.frombuffer(mask, bool)
        steps = pl.DataFrame(self._snapshot.metadata(number, ["step"]))["step"]
        if hidden is not None:
            steps = steps.filter(pl.Series(~hidden))
        return frozenset(steps.drop_nulls().unique().to_list())

    def groups(self, some: np.ndarray) -> list[Group]:
        """Some of the groups."""
        described = self._snapshot.groups(None if some.all() else np.flatnonzero(some).tolist())
        return list(map(Group._make, described))
