"""Metadata of many groups at once, and how much of it is kept decoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from lamina import _core
from lamina.runs.scan.predicates import Memory

if TYPE_CHECKING:
    from lamina._core import Snapshot

KEPT_BYTES = 192 << 20
"""Most bytes of decoded metadata that a snapshot keeps for the next question."""

_NUMBERS = (pl.Int64, pl.Float64)
_DECIDED = 64
"""How many terms are remembered."""


class Kept(NamedTuple):
    """A column, and if it is of numbers and none is missing an array of them."""

    series: pl.Series
    array: np.ndarray | None

    @staticmethod
    def of(series: pl.Series) -> Kept:
        """A column that may be made again."""
        plain = series.dtype in _NUMBERS and series.n_chunks() == 1 and not series.null_count()
        return Kept(series, series.to_numpy() if plain else None)


class Cells:
    """The metadata of one snapshot. Safe to use from several threads."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._zones: dict[str, pl.DataFrame] = {}
        self._decided = Memory["np.ndarray | None"](_DECIDED)
        self._ascend: dict[int, bool] = {}
        self._ascends: dict[tuple[int, str], bool] = {}

    def columns(self, groups: tuple[int, ...], names: Sequence[str]) -> list[pl.Series]:
        """Metadata columns of the rows of groups, one group behind the other."""
        return [kept.series for kept in self.kept(groups, names)]

    def kept(self, groups: tuple[int, ...], names: Sequence[str]) -> list[Kept]:
        """The same, with their numbers."""
        found = self._look_up([(groups, name) for name in names])
        if missing := [at for at, kept in enumerate(found) if kept is None]:
            batch = pl.DataFrame(_core.metadata_of(self.snapshot, list(groups), [names[at] for at in missing]))
            for at, series in zip(missing, batch.get_columns(), strict=True):
                found[at] = self._keep((groups, names[at]), series)
        return [kept for kept in found if kept is not None]

    def at(self, groups: np.ndarray, positions: np.ndarray, names: Sequence[str]) -> list[pl.Series]:
        """Metadata columns of few rows, one at least, by the groups where they lie and their positions there.

        Each group's columns are kept by themselves, so that a question about other rows finds them again.
        """
        cuts = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist(), groups.size]
        runs = list(pairwise(cuts))
        numbers = groups[cuts[:-1]].tolist() if groups.size else []
        if len(runs) > len(set(numbers)) > 1:
            order = np.argsort(groups, kind="stable")
            back = np.empty_like(order)
            back[order] = np.arange(order.size)
            return [taken(series, back) for series in self.at(groups[order], positions[order], names)]
        pieces = [positions[low:high] for low, high in runs]
        columns = zip(*(self.kept((number,), names) for number in numbers), strict=True)
        return [_at(name, kept, pieces) for name, kept in zip(names, columns, strict=True)]

    def ascends(self, group: int, name: str) -> bool:
        """Whether a metadata column of a group has a value for each row, and none of them is below the one before."""
        if (group, name) not in self._ascends:
            (series,) = self.columns((group,), [name])
            self._ascends[group, name] = not series.null_count() and series.is_sorted()
        return self._ascends[group, name]

    def names(self, group: int) -> np.ndarray:
        """The row names of a group that has a block of them."""
        key = ("names", group)
        (kept,) = self._look_up([key])
        if kept is None:
            kept = self._keep(key, pl.Series("row", np.frombuffer(self.snapshot.names(group), dtype=np.int64)))
        assert kept.array is not None
        return kept.array

    def ascend(self, group: int) -> bool:
        """Whether the row names of a group that has a block of them ascend."""
        if group not in self._ascend:
            self._ascend[group] = bool((np.diff(self.names(group)) > 0).all())
        return self._ascend[group]

    def hidden(self, group: int, site: str | None = None) -> np.ndarray | None:
        """Which rows of a group are hidden, or show no value of the site; None if that is so for no row."""
        if group not in self._hiding:
            return None
        mask = self.snapshot.hidden(group, site)
        return None if mask is None else np.frombuffer(mask, dtype=bool)

    @cached_property
    def _hiding(self) -> frozenset[int]:
        return frozenset(_core.hiding_groups(self.snapshot))

    def zones(self, column: str) -> pl.DataFrame:
        """What lies in a column of each group: least, greatest, nulls, nans, rows; null where that is not known."""
        if column not in self._zones:
            self._zones[column] = self._row_zones() if column == "row" else self._column_zones(column)
        return self._zones[column]

    def decided(
        self, term: pl.Expr, decide: Callable[[pl.Expr, Callable[[str], pl.DataFrame]], pl.Series | None]
    ) -> np.ndarray | None:
        """What `decide` says of a term and the zones, a boolean a group; asked again, it is remembered."""
        return self._decided.of(term, lambda: _as_array(decide(term, self.zones)))

    def _column_zones(self, column: str) -> pl.DataFrame:
        return pl.DataFrame(_core.column_zones(self.snapshot, column))

    def _row_zones(self) -> pl.DataFrame:
        table = pl.DataFrame(_core.group_table(self.snapshot)[0])
        none = pl.lit(0, pl.Int64)
        return table.select(least="first", greatest="last", nulls=none, nans=none, rows="rows")

    def _look_up(self, keys: Sequence[Hashable]) -> list[Kept | None]:
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, kept in zip(keys, found, strict=True):
                if kept is not None:
                    self._kept.move_to_end(key)
        return found

    def _keep(self, key: Hashable, series: pl.Series) -> Kept:
        size, kept = int(series.estimated_size()), Kept.of(series)
        with self._lock:
            if key not in self._kept and size <= KEPT_BYTES // 2:
                self._kept[key] = kept
                self._bytes += size
                while self._bytes > KEPT_BYTES:
                    self._bytes -= int(self._kept.popitem(last=False)[1].series.estimated_size())
        return kept


def _at(name: str, columns: Sequence[Kept], pieces: Sequence[np.ndarray]) -> pl.Series:
    """Some cells of each of some columns, behind each other."""
    arrays = [kept.array for kept in columns]
    found = [array[at] for array, at in zip(arrays, pieces, strict=True) if array is not None]
    if len(found) == len(columns):
        return pl.Series(name, np.concatenate(found))
    return pl.concat([kept.series[at] for kept, at in zip(columns, pieces, strict=True)], rechunk=True)


def as_frame(columns: list[pl.Series]) -> pl.DataFrame:
    """Columns as a frame, past all that `pl.DataFrame` could be given instead."""
    if not columns:
        return pl.DataFrame()
    return columns[0].to_frame().hstack(columns[1:]) if columns[1:] else columns[0].to_frame()


def taken(series: pl.Series, at: np.ndarray) -> pl.Series:
    """Some cells. Polars takes numbers with all its threads, which is more to begin than it is to do."""
    if series.dtype in _NUMBERS and series.n_chunks() == 1 and not series.null_count():
        return pl.Series(series.name, series.to_numpy()[at])
    return series[at]


def rows_of(frame: pl.DataFrame, at: np.ndarray) -> pl.DataFrame:
    """Some rows of a frame."""
    return as_frame([taken(series, at) for series in frame.get_columns()])


def together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames with the same columns one behind the other, past all threads that Polars would take for them."""
    if len(frames) == 1:
        return frames[0]
    joined = []
    for parts in zip(*(frame.get_columns() for frame in frames), strict=True):
        if parts[0].dtype in _NUMBERS and not any(part.null_count() for part in parts):
            joined.append(pl.Series(parts[0].name, np.concatenate([part.to_numpy() for part in parts])))
        else:
            joined.append(pl.concat(parts, rechunk=True))
    return as_frame(joined)


def _as_array(decided: pl.Series | None) -> np.ndarray | None:
    return None if decided is None else decided.fill_null(True).to_numpy().astype(bool)
