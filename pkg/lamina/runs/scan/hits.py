"""The rows that a question about some features is about, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lamina.runs.scan.attached import Attached

if TYPE_CHECKING:
    from lamina.runs.scan.cells import Cells
    from lamina.runs.scan.groups import Group, InOrder, Span


FEW = 1 << 17
"""So many rows are few: their metadata are taken from each group by itself. More are taken from as many rows."""


class Hits:
    """Rows by their names, and with them all rows of whole groups.

    Args:
        cells: The metadata of the snapshot.
        site: The site whose values are asked for.
        names: The names, ascending.
        whole: Groups that hold the site and whose rows all are meant.
    """

    def __init__(self, cells: Cells, site: str, names: np.ndarray, whole: Sequence[Group] = ()) -> None:
        self._names = names
        self._own = {group.number for group in whole if group.kind != "attached"}
        self._attached = Attached(cells, [site], whole)
        self._site = site

    @property
    def are_few(self) -> bool:
        """Whether there are few."""
        return self._names.size <= FEW and not self._own and not self._attached.sites

    def among(self, groups: InOrder) -> list[Group]:
        """The groups, of some, that made such rows."""
        some = groups.holding(self._names)
        firsts, lasts = self._attached.spans()
        if firsts.size:
            at = np.searchsorted(firsts, groups.lasts, side="right") - 1
            some |= (at >= 0) & (lasts[at] >= groups.firsts)
        if self._own:
            some |= np.array([group.number in self._own for group in groups.groups], dtype=bool)
        return groups.where(some)

    def at(self, span: Span) -> np.ndarray | None:
        """Which rows of a span they are, ascending; None for all."""
        whole = [group.number in self._own for group in span.groups]
        if all(whole):
            return None
        low, high = np.searchsorted(self._names, (span.first, span.last + 1))
        found = [span.find(self._names[low:high])[1]]
        found += [span.of(index) for index in np.flatnonzero(whole).tolist()]
        if self._attached.sites:
            names = self._attached.values(self._site, np.array([span.first, span.last])).names
            found.append(span.find(names)[1])
        return found[0] if len(found) == 1 else np.unique(np.concatenate(found))
