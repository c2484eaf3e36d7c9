"""Where the values of sites lie: with the rows, or in groups that were attached to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import polars as pl

from lamina import _core
from lamina.errors import LaminaWarning
from lamina.runs.scan.attached import Attached
from lamina.runs.scan.cells import Cells
from lamina.runs.scan.groups import Span


class Values:
    """The values of a frame's sites.

    Args:
        cells: The metadata of the snapshot.
        sites: The sites and their types.
        attached: Their attached groups.
        bits: Show bf16 and f8 as their bits.
    """

    def __init__(self, cells: Cells, sites: Mapping[str, pl.DataType], attached: Attached, *, bits: bool) -> None:
        self._cells = cells
        self._sites = sites
        self._attached = attached
        self._widen = not bits
        self._told: set[str] = set()

    def present(self, span: Span) -> np.ndarray | None:
        """The rows of a span that have one of the sites and are not hidden; None for all."""
        masks = []
        for group in span.groups:
            sites = [name for name in self._sites if name in group.sites]
            absent = [self._cells.hidden(group.number, name) for name in sites]
            some = [mask for mask in absent if mask is not None]
            if len(some) < len(absent):
                masks.append(None)
            else:
                masks.append(~np.logical_and.reduce(some) if some else np.zeros(group.rows, dtype=bool))
        if all(mask is None for mask in masks):
            return None
        both = zip(span.groups, masks, strict=True)
        present = np.concatenate([np.ones(group.rows, dtype=bool) if mask is None else mask for group, mask in both])
        present = present if span.order is None else present[span.order]
        names = span.names(None) if self._attached.sites else np.empty(0)
        for site in self._attached.sites:
            values = self._attached.values(site, names)
            present[_found(values.names, names)[1]] = True
        for start, group in zip(span.starts, span.groups, strict=False):
            hidden = self._cells.hidden(group.number)
            if hidden is not None:
                which = np.arange(start, start + group.rows)[hidden]
                present[which if span.order is None else np.argsort(span.order)[which]] = False
        return np.flatnonzero(present)

    def shown(self, span: Span, at: np.ndarray | None) -> np.ndarray | None:
        """Which of some rows of a span are not hidden, whatever they hold; None for all."""
        hidden = [self._cells.hidden(group.number) for group in span.groups]
        if all(mask is None for mask in hidden):
            return None
        which, positions = span.places(at)
        shown = np.ones(which.size, dtype=bool)
        for index, mask in enumerate(hidden):
            if mask is not None:
                here = np.flatnonzero(which == index)
                shown[here] = ~mask[positions[here]]
        return np.flatnonzero(shown)

    def is_plain(self, span: Span, site: str) -> bool:
        """Whether the groups of a span, one behind the other, hold the site's values of all its rows and no others."""
        held = span.order is None and site not in self._attached.sites
        return held and all(
            site in group.sites and self._cells.hidden(group.number, site) is None for group in span.groups
        )

    def places(self, span: Span, site: str, at: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The groups that hold the site's values of rows, -1 where there is none, and the positions there."""
        which, positions = span.places(at)
        numbers = [group.number if site in group.sites else -1 for group in span.groups]
        groups = np.array(numbers, dtype=np.int64)[which]
        for index, group in enumerate(span.groups):
            absent = self._cells.hidden(group.number, site) if site in group.sites else None
            if absent is not None:
                here = np.flatnonzero(which == index)
                groups[here[absent[positions[here]]]] = -1
        if site in self._attached.sites and groups.size:
            names = span.names(at)
            values = self._attached.values(site, names)
            there, here = _found(values.names, names)
            again = groups[here] >= 0
            if again.any() or values.repeated.size:
                self._tell(site, values.names[there][again], values.repeated)
            there, here = there[~again], here[~again]
            groups[here] = values.groups[there]
            positions[here] = values.positions[there]
        return groups, positions

    def _tell(self, site: str, *names: np.ndarray) -> None:
        if site not in self._told:
            self._told.add(site)
            repeated = np.unique(np.concatenate(names))
            shown = ", ".join(map(str, repeated[:3])) + (", …" if repeated.size > 3 else "")
            text = f"rows have several values of {site!r} (rows {shown}): that of the lowest writer is shown"
            warnings.warn(text, LaminaWarning, stacklevel=2)

    def vectors(self, span: Span, site: str, at: np.ndarray | None) -> pl.Series:
        """The site's values of rows of a span; all by default."""
        snapshot = self._cells.snapshot
        if site not in self._attached.sites:
            if all(site not in group.sites for group in span.groups):
                rows = span.rows if at is None else at.size
                return pl.Series(site, [None], dtype=self._sites[site]).new_from_index(0, rows)
            group = span.groups[0]
            if len(span.groups) == 1 and self.is_plain(span, site):
                some = None if at is None else np.ascontiguousarray(at, dtype=np.int64).view(np.uint8)
                return pl.Series(site, snapshot.vectors(group.number, site, some, widen=self._widen))
        groups, positions = self.places(span, site, at)
        lies = groups.astype(np.int64, copy=False).view(np.uint8), positions.astype(np.int64, copy=False).view(np.uint8)
        return pl.Series(site, _core.vectors_at(snapshot, site, *lies, widen=self._widen))


def _found(some: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where names that both have stand in the one, and in the other; both ascend."""
    if not some.size:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    at = np.minimum(np.searchsorted(some, names), some.size - 1)
    here = np.flatnonzero(some[at] == names)
    return at[here], here
