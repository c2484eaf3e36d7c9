"""Sites that were recorded for rows which other groups had made: found by the rows' names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lamina import _core
from lamina.runs.scan.groups import Group

if TYPE_CHECKING:
    from lamina.runs.scan.cells import Cells


_FEW = 64
"""Of a group with so many times as many rows as are wanted, each is looked up."""


class Found(NamedTuple):
    """Which rows have an attached value of a site, ascending, and where it lies; and the names that had several."""

    names: np.ndarray
    groups: np.ndarray
    positions: np.ndarray
    repeated: np.ndarray


class Attached:
    """The attached groups of some sites."""

    def __init__(self, cells: Cells, sites: Iterable[str], groups: Sequence[Group]) -> None:
        self._cells = cells
        attached = {group.number: group for group in groups if group.kind == "attached"}
        self._of_site: dict[str, list[Group]] = {}
        wanted = set(sites)
        # the value of the lowest writer counts, and of its own the one that it wrote first
        for number in _core.in_order_of_writing(cells.snapshot, list(attached)):
            for site in wanted.intersection(attached[number].sites):
                self._of_site.setdefault(site, []).append(attached[number])

    @property
    def sites(self) -> list[str]:
        """The sites that are attached to some row."""
        return list(self._of_site)

    def spans(self) -> tuple[np.ndarray, np.ndarray]:
        """Ranges of names that cover all attached rows: their first and last names, ascending and apart."""
        ranges = sorted({(group.first, group.last) for groups in self._of_site.values() for group in groups})
        merged: list[tuple[int, int]] = []
        for first, last in ranges:
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], last)
            else:
                merged.append((first, last))
        array = np.array(merged, dtype=np.int64).reshape(-1, 2)
        return array[:, 0], array[:, 1]

    def values(self, site: str, wanted: np.ndarray) -> Found:
        """The values of rows of some names (ascending), and maybe of others between the first and the last of them.

        Costs no more memory than the values between these two and one group's names.
        """
        first, last = wanted[0], wanted[-1]
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for group in self._of_site.get(site, ()):
            if group.last < first or group.first > last:
                continue
            names = self._cells.names(group.number)
            if not self._cells.ascend(group.number):
                positions = np.flatnonzero((names >= first) & (names <= last))
            elif wanted.size > 2 and _FEW * wanted.size < names.size:
                positions = np.minimum(np.searchsorted(names, wanted), names.size - 1)
                positions = positions[names[positions] == wanted]
            else:
                positions = np.arange(*np.searchsorted(names, (first, last + 1)))
            hidden = self._cells.hidden(group.number, site)
            if hidden is not None:
                positions = positions[~hidden[positions]]
            found.append((names[positions], np.full(positions.size, group.number), positions))
        if not found:
            empty = np.empty(0, dtype=np.int64)
            return Found(empty, empty, empty, empty)
        names, groups, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(names, kind="stable")
        names, groups, positions = names[order], groups[order], positions[order]
        again = np.zeros(names.size, dtype=bool)
        again[1:] = names[1:] == names[:-1]
        return Found(names[~again], groups[~again], positions[~again], np.unique(names[again]))
