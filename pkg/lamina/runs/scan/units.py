"""Active units of sparse codes: those that indexes found, and from the codes what no index answers for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina import _core
from lamina.runs.scan.cells import as_frame, rows_of, taken, together
from lamina.runs.scan.hits import Hits

if TYPE_CHECKING:
    from lamina._core import Snapshot
    from lamina.runs.scan.groups import Group
    from lamina.runs.scan.indexed import Indexed
    from lamina.runs.scan.scan import Scan

Place = tuple[pl.DataFrame, np.ndarray, np.ndarray]
"""Metadata of rows, and the groups and the positions where their codes lie."""

BATCH = 1 << 21
"""Units of a batch, about: 80 MB where all metadata are asked for."""
_ROWS = 1 << 18
"""Rows that are looked at together."""


class Units:
    """The units of a site.

    Args:
        snapshot: Where the codes lie.
        scan: The rows that have codes.
        site: The site.
    """

    def __init__(self, snapshot: Snapshot, scan: Scan, site: str) -> None:
        self._snapshot, self._scan, self._site = snapshot, scan, site

    def walk(
        self,
        early: pl.Expr | None,
        cells: list[str],
        features: np.ndarray | None,
        indexed: Indexed | None,
        most: int = BATCH,
    ) -> Iterator[pl.DataFrame]:
        """Units of some features (None for all) in rows that satisfy a predicate over metadata, with some columns.

        Those that indexes found, and of the groups that these do not answer for what a scan finds. Without `indexed`
        all codes are scanned.
        """
        if indexed is None:
            yield from self._scanned(early, cells, features, None, None, most)
            return
        if not self._scan.plain:
            # a row may have several values: what it shows decides, and its units are looked up
            unknown = [group for group, known in self._known(indexed) if not known]
            hits = Hits(self._scan.cells, self._site, np.unique(indexed.rows), unknown)
            yield from self._scanned(early, cells, features, hits, indexed, most)
            return
        for known, groups in groupby(self._known(indexed), key=itemgetter(1)):
            some = [group for group, _ in groups]
            if not known:
                hits = Hits(self._scan.cells, self._site, np.empty(0, np.int64), some)
                yield from self._scanned(early, cells, features, hits, indexed, most)
                continue
            here = indexed.between(some[0].number, some[-1].number)
            if early is None and cells in ([], ["row"]) and all(group.kind == "own" for group in some):
                # their names say all that is asked, and the indexes leave out what is hidden
                rows = [pl.Series("row", indexed.rows[here])] if cells else []
                yield as_frame([*rows, *(series[here] for series in indexed.columns)])
                continue
            for metadata, which in self._scan.found(early, cells, indexed.rows[here]):
                units = [series[here] for series in indexed.columns]
                units = [series[which] if isinstance(which, slice) else taken(series, which) for series in units]
                yield as_frame([*metadata.get_columns(), *units])

    def _known(self, indexed: Indexed) -> list[tuple[Group, bool]]:
        """The groups that hold the site, and whether indexes answered for them."""
        return list(zip(self._scan.holding, indexed.answers(self._numbers).tolist(), strict=True))

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The numbers of the groups that hold the site."""
        return np.array([group.number for group in self._scan.holding], dtype=np.int64)

    def _names(self, groups: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The names of the rows at these places."""
        order = np.argsort(groups, kind="stable")
        names = np.empty(groups.size, np.int64)
        bounds = np.searchsorted(groups[order], self._numbers)
        for group, low, high in zip(self._scan.holding, bounds, [*bounds[1:], groups.size], strict=True):
            at = positions[order[low:high]]
            names[order[low:high]] = (
                at + group.first if group.kind == "own" else self._scan.cells.names(group.number)[at]
            )
        return names

    def _scanned(
        self,
        early: pl.Expr | None,
        cells: list[str],
        features: np.ndarray | None,
        hits: Hits | None,
        indexed: Indexed | None,
        most: int,
    ) -> Iterator[pl.DataFrame]:
        """Units of rows that satisfy a predicate, of `hits` alone, row after row."""
        places = self._scan.places(early, cells, hits)
        for metadata, groups, positions in places if hits is None else gathered(places):
            start = 0
            while start < groups.size:
                some = slice(start, start + _ROWS)
                count, units = self.of(groups[some], positions[some], features, indexed, most)
                at = units["at"].to_numpy() + start
                yield as_frame([taken(metadata[name], at) for name in cells] + [units["feature"], units["value"]])
                start += count

    def of(
        self, groups: np.ndarray, positions: np.ndarray, features: np.ndarray | None, indexed: Indexed | None, most: int
    ) -> tuple[int, pl.DataFrame]:
        """Units of rows by the groups and positions where they lie, of some features (None for all).

        Of the first rows, until `most` or more were read: how many rows, and `at` (which), `feature`, `value`.
        """
        scanned = np.arange(groups.size) if indexed is None else np.flatnonzero(~indexed.answers(groups))
        count, units = groups.size, pl.DataFrame()
        if scanned.size or indexed is None:
            lies = [part[scanned].astype(np.int64).view(np.uint8) for part in (groups, positions)]
            chosen = None if features is None else features.view(np.uint8)
            read, batch = _core.codes_at(self._snapshot, self._site, lies[0], lies[1], chosen, most)
            units = pl.DataFrame(batch)
            count = count if read == scanned.size else int(scanned[read])
        if indexed is None:
            return count, units
        found = indexed.of(self._names(groups[:count], positions[:count]))
        if not scanned.size:
            return count, found
        both = found.vstack(units.with_columns(pl.Series("at", scanned[units["at"].to_numpy()])))
        return count, rows_of(both, np.argsort(both["at"].to_numpy(), kind="stable"))


def gathered(places: Iterator[Place], most: int = _ROWS) -> Iterator[Place]:
    """Places of few rows each, together: to look at each takes longer than what there is to see."""
    kept, rows = [], 0
    for piece in places:
        kept.append(piece)
        rows += piece[1].size
        if rows >= most:
            yield _together(kept)
            kept, rows = [], 0
    if kept:
        yield _together(kept)


def _together(places: list[Place]) -> Place:
    frames, groups, positions = zip(*places, strict=True)
    return together(frames), np.concatenate(groups), np.concatenate(positions)
