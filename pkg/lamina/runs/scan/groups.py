"""Row groups, and spans of them in the order of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from lamina.runs.scan.cells import Cells, as_frame, taken


class Group(NamedTuple):
    """A row group as the core lists it."""

    number: int
    first: int
    rows: int
    sites: tuple[str, ...]
    least_step: int | None
    greatest_step: int | None
    kind: str
    last: int


class InOrder:
    """Groups in order of their first rows.

    Attributes:
        groups: As given.
        numbers: Their numbers, int64.
        firsts: The names of their first rows.
        lasts: Those of their last ones.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.numbers = np.array([group.number for group in groups], dtype=np.int64)
        self.firsts = np.array([group.first for group in groups], dtype=np.int64)
        self.lasts = np.array([group.last for group in groups], dtype=np.int64)

    def holding(self, names: np.ndarray) -> np.ndarray:
        """Which have one of some names (ascending) between their first and their last."""
        return np.searchsorted(names, self.firsts) < np.searchsorted(names, self.lasts, side="right")

    def where(self, mask: np.ndarray) -> list[Group]:
        """Those for which a mask is true."""
        return [self.groups[at] for at in np.flatnonzero(mask).tolist()]


class Span:
    """Groups whose rows are read together, in the order of the rows' names.

    Rows are counted from 0 over all groups in that order. No other group has a row between them.
    """

    def __init__(self, cells: Cells, groups: Sequence[Group]) -> None:
        self._cells = cells
        self.groups = groups
        self.numbers = tuple(group.number for group in groups)
        self._numbers = np.array(self.numbers, dtype=np.int64)
        self.starts = np.cumsum([0] + [group.rows for group in groups])
        self.rows = int(self.starts[-1])
        self.first = min(group.first for group in groups)
        self.last = max(group.last for group in groups)
        self._names: np.ndarray | None = None
        # Where the groups' rows interleave, or do not ascend, rows are counted by this order of what lies behind
        # each other; else there is none.
        self.order: np.ndarray | None = None
        if any(group.kind == "named" for group in groups):
            if len(groups) == 1:
                names, ascend = cells.names(groups[0].number), cells.ascend(groups[0].number)
            else:
                names = np.concatenate([self._names_of(group) for group in groups])
                ascend = bool((np.diff(names) > 0).all())
            if not ascend:
                self.order = np.argsort(names, kind="stable")
                names = names[self.order]
            self._names = names

    def _names_of(self, group: Group) -> np.ndarray:
        if group.kind == "own":
            return np.arange(group.first, group.first + group.rows, dtype=np.int64)
        return self._cells.names(group.number)

    def places(self, at: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Which of the groups rows lie in, and at which position there; all rows by default."""
        if at is None:
            which = np.repeat(np.arange(len(self.groups)), [group.rows for group in self.groups])
            at = np.arange(self.rows)
            if self.order is None:
                return which, at - self.starts[which]
        behind = at if self.order is None else self.order[at]
        which = np.searchsorted(self.starts, behind, side="right") - 1
        return which, behind - self.starts[which]

    def names(self, at: np.ndarray | None) -> np.ndarray:
        """The names of rows, ascending if `at` is; all by default."""
        if self._names is not None:
            return self._names if at is None else self._names[at]
        if len(self.groups) == 1:
            return self._names_of(self.groups[0]) if at is None else at + self.first
        which, positions = self.places(at)
        return np.array([group.first for group in self.groups], dtype=np.int64)[which] + positions

    def frame(self, columns: Sequence[str], at: np.ndarray | None) -> pl.DataFrame:
        """The names (`row`) and metadata columns of rows, in this order; of all rows by default."""
        order = at if self.order is None else self.order if at is None else self.order[at]
        found = iter(self._cells.columns(self.numbers, [name for name in columns if name != "row"]))
        result = []
        for name in columns:
            if name == "row":
                result.append(pl.Series("row", self.names(at)))
            else:
                series = next(found)
                result.append(series if order is None else taken(series, order))
        return as_frame(result)

    def cells(self, columns: Sequence[str], at: np.ndarray | None) -> pl.DataFrame:
        """The same of few rows, but one at least: from each group what it has of them."""
        which, positions = self.places(at)
        found = iter(self._cells.at(self._numbers[which], positions, [name for name in columns if name != "row"]))
        return as_frame([pl.Series("row", self.names(at)) if name == "row" else next(found) for name in columns])

    def find(self, names: np.ndarray) -> tuple[np.ndarray | slice, np.ndarray]:
        """Which rows of some names (ascending, between the first and the last of the span) are here, and where."""
        if self._names is None:
            if len(self.groups) == 1:
                return slice(None), names - self.first
            firsts = np.array([group.first for group in self.groups], dtype=np.int64)
            which = np.searchsorted(firsts, names, side="right") - 1
            at = names - firsts[which] + self.starts[which]
            there = np.flatnonzero(at < self.starts[which + 1])
        else:
            at = np.searchsorted(self._names, names)
            there = np.flatnonzero(self._names[at] == names)
        return (slice(None), at) if there.size == at.size else (there, at[there])

    def of(self, index: int) -> np.ndarray:
        """Where the rows of one of the groups are."""
        behind = np.arange(self.starts[index], self.starts[index + 1])
        return behind if self.order is None else np.flatnonzero(np.isin(self.order, behind))

    def narrow(self, at: np.ndarray) -> tuple[Span, np.ndarray]:
        """The same rows in a span of no more groups than they need."""
        if self.order is not None:
            return self, at
        if len(self.groups) == 1:
            return self, at
        which = np.searchsorted(self.starts, at, side="right") - 1
        kept = np.flatnonzero(np.bincount(which))
        if kept.size == len(self.groups):
            return self, at
        span = Span(self._cells, [self.groups[index] for index in kept.tolist()])
        return span, at - self.starts[which] + span.starts[np.searchsorted(kept, which)]


def spans_of_few(cells: Cells, groups: Sequence[Group], most: int) -> Iterator[Span]:
    """The same where few rows are wanted: together, unless some of the groups have to be looked through."""
    if not groups or any(group.kind != "own" for group in groups):
        yield from spans(cells, groups, most)
    else:
        yield Span(cells, groups)


def spans(cells: Cells, groups: Sequence[Group], most: int) -> Iterator[Span]:
    """Cut groups in order of their first row into spans of at most `most` rows, or of one group.

    Groups whose names interleave stay together. The first spans are small, for who stops after a few rows.
    """
    allowed, taken, rows, last = 1, [], 0, -1
    for group in groups:
        if taken and group.first > last and rows + group.rows > allowed:
            yield Span(cells, taken)
            allowed, taken, rows = min(most, max(2 * rows, 2 * allowed)), [], 0
        taken.append(group)
        rows += group.rows
        last = max(last, group.last)
    if taken:
        yield Span(cells, taken)
