"""The long frame of sparse codes: a row for each active unit.

A predicate is taken apart: its terms over metadata alone are evaluated by Polars on metadata alone, those over
`feature` alone once on all features, and what is left on the units that these two leave. All terms together are the
predicate. Where few features are left, their units come from the indexes of the segments, and from a scan of the codes
that have none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import groupby
from operator import and_, itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lamina import _core
from lamina.errors import LaminaWarning
from lamina.runs import indexing
from lamina.runs.scan.cells import as_frame, rows_of, taken, together
from lamina.runs.scan.hits import Hits
from lamina.runs.scan.indexed import Indexed
from lamina.runs.scan.predicates import Memory, all_of, names_in, passing, split
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    from pathlib import Path

    from lamina._core import Snapshot
    from lamina.runs.scan.groups import Group
    from lamina.runs.scan.scan import Scan

Place = tuple[pl.DataFrame, np.ndarray, np.ndarray]
"""Metadata of rows, and the groups and the positions where their codes lie."""

_UNITS = 1 << 21
"""Units of a batch, about: 80 MB where all metadata are asked for."""
_ROWS = 1 << 18
"""Rows that are looked at together."""
_MOST_FEATURES = 1 << 24
"""Beyond this many, terms over `feature` are evaluated on the units, and what each feature has is not counted."""
_PLANS = 16
"""How many questions a frame remembers the plans of."""
_MOST_REMEMBERED = 1 << 20
"""The most features of a frame that remembers plans: they name those that are wanted."""
_SHARE = 8
"""Where more than one in so many units is wanted, codes are scanned: putting in order what indexes say may be slower.

Measured with 65,536 features and 64 of them active a row: at one in 8 it is quicker yet, at one in 4 as quick."""
_MOST_FOUND = 1 << 23
"""The most units that are taken from indexes at once, some 250 MB; a scan takes 60 MB whatever it finds."""
_WHY = {"missing": "is missing", "stale": "is stale", "damaged": "is damaged", "newer": "was written by a newer Lamina"}
"""What is told of an index that a question misses."""


class Plan(NamedTuple):
    """How a predicate is answered: its terms over metadata, the features that pass (None for all), the other terms."""

    early: pl.Expr | None
    features: np.ndarray | None
    late: pl.Expr | None
    late_names: frozenset[str]


class Expected(NamedTuple):
    """How many units are to be found among so many of so many rows, as far as there are indexes; and the other rows."""

    found: float
    units: int
    rows: int
    unknown: int

    @property
    def are_few(self) -> bool:
        """Whether reading them is less than scanning all, and fits memory."""
        return self.found <= _MOST_FOUND and _SHARE * self.found <= self.units


class Features:
    """One long frame.

    Args:
        snapshot: Where the codes lie.
        path: The run's folder.
        scan: The rows that have codes.
        site: The site.
        value: The type of a value.
        width: The number of features.
        columns: The metadata columns and their types.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        path: Path,
        scan: Scan,
        site: str,
        value: pl.DataType,
        width: int,
        columns: Mapping[str, pl.DataType],
    ) -> None:
        self.snapshot, self.site, self.scan, self.width = snapshot, site, scan, width
        self._path = path
        self._columns = {"row": pl.Int64(), **columns}
        self._units = {"feature": pl.Int64(), "value": value}
        self._plans = Memory[Plan](_PLANS)
        self._counts: np.ndarray | None = None
        self._told: set[str] = set()

    @property
    def columns(self) -> list[str]:
        """The metadata columns, `row` first."""
        return list(self._columns)

    @cached_property
    def rows(self) -> int:
        """How many rows have codes."""
        if all(group.kind != "attached" for group in self.scan.holding):
            return next(rows for name, _, _, rows, *_ in self.snapshot.sites() if name == self.site)
        # some may be attached to rows that are hidden, or to one that has others already
        return sum(groups.size for _, groups, _ in self.scan.places(None, []))

    def empty(self) -> pl.DataFrame:
        """The metadata columns and `value`, without a row."""
        return pl.DataFrame(schema=self._columns | {"value": self._units["value"]})

    def only(self, features: Sequence[int] | np.ndarray) -> np.ndarray:
        """A byte a feature, 1 for some."""
        mask = np.zeros(self.width, np.uint8)
        mask[features] = 1
        return mask

    def frame(self) -> pl.LazyFrame:
        """The LazyFrame; nothing is read before it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(self._columns | self._units), is_pure=True)

    def of(self, features: np.ndarray) -> Iterator[pl.DataFrame]:
        """The `row` and `feature` of the units of some features, batch by batch. No row is in two batches."""
        for units in self.walk(None, ["row"], features, self.indexed(features)):
            yield units.drop("value")

    def at(self, names: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The units of some features in rows that have codes, row after row: which row, feature, value."""
        ascending, back = np.unique(names, return_inverse=True)
        mask = None if features.size == self.width else self.only(features)
        (place,) = gathered(self.scan.places(None, [], Hits(self.scan.cells, self.site, ascending)), names.size + 1)
        _, groups, positions = place
        _, units = self.units_of(groups[back], positions[back], mask, None, names.size * self.width + 1)
        return units["at"].to_numpy(), units["feature"].to_numpy(), units["value"].to_numpy()

    def break_even(self, features: np.ndarray) -> float:
        """How many rows may be scanned before reading all units of some features by the indexes would be less."""
        expected = self._expected(features)
        if not expected.units or not expected.are_few:
            return math.inf
        return expected.unknown + _SHARE * expected.found / expected.units * expected.rows

    def _expected(self, features: np.ndarray) -> Expected:
        """What indexes hold of some features: counted, unless it is few in any case.

        Where an index is missing or a row is hidden counting would be a scan, and where there are very many features
        what is counted would be large: then what so many features have on average.
        """
        segments = _core.feature_indexes(self.snapshot, self.site)
        known = [segment for segment in segments if segment[-1] == "ready"]
        rows, units = sum(rows for _, rows, *_ in known), sum(units for _, _, units, _ in known)
        unknown = sum(rows for _, rows, *_ in segments) - rows
        sure = unknown or self.width > _MOST_FEATURES or Expected(features.size * rows, units, rows, 0).are_few
        if self._counts is None and not sure and not self._hides:
            stats = pl.DataFrame(_core.feature_stats(self.snapshot, self.site, available_threads()))
            self._counts = stats["count"].to_numpy()
        found = units * features.size / self.width if self._counts is None else self._counts[features].sum()
        return Expected(found, units, rows, unknown)

    @cached_property
    def _hides(self) -> bool:
        """Whether rows that have codes are hidden, or show others."""
        return any(self.scan.cells.hidden(group.number, self.site) is not None for group in self.scan.holding)

    def tell_of_indexes(self, found: Indexed | None = None) -> None:
        """Warns, once of each, of indexes that are missed, unless these answered for all groups.

        Those that are damaged, and of large segments those that are missing, are built in the background.
        """
        if found is not None and found.answers(self._numbers).all():
            return
        segments = _core.feature_indexes(self.snapshot, self.site)
        states = {
            file: state
            for file, _, units, state in segments
            if file not in self._told and (state == "newer" or indexing.is_wanted(units, state))
        }
        self._told.update(states)
        for file, how in indexing.on_demand(self._path, self.site, states).items():
            text = f"the index of {self.site!r} in {file} {_WHY[states[file]]}: codes are scanned; {how}"
            warnings.warn(text, LaminaWarning, stacklevel=2)

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Generator[pl.DataFrame, None, None]:
        wanted = list(self._columns | self._units) if with_columns is None else with_columns
        plan = self._plan(predicate)
        if n_rows == 0 or (plan.features is not None and not plan.features.size):
            return
        needed = plan.late_names.union(wanted)
        cells = [name for name in self._columns if name in needed]
        left = n_rows
        most = min(_UNITS, batch_size or _UNITS, _UNITS if left is None or plan.late is not None else left)
        for batch in self.walk(plan.early, cells, plan.features, self.indexed(plan.features), most):
            if plan.late is not None:
                passed = passing(batch, plan.late)
                batch = rows_of(batch, passed)
            if left is not None:
                batch = batch.head(left)
                left -= batch.height
            # not select(): Polars would make a query of its own of it
            yield batch if batch.columns == wanted else batch[wanted]
            if left == 0:
                return

    def _plan(self, predicate: pl.Expr | None) -> Plan:
        """How to answer; remembered, since the same is asked of a frame again and again."""
        if self.width > _MOST_REMEMBERED:
            return self._planned(predicate)
        return self._plans.of(predicate, lambda: self._planned(predicate))

    def _planned(self, predicate: pl.Expr | None) -> Plan:
        terms = split(predicate, self._columns)
        alone = [self.width <= _MOST_FEATURES and {*term.meta.root_names()} == {"feature"} for term in terms.late]
        of_feature = [term for term, is_alone in zip(terms.late, alone, strict=True) if is_alone]
        late = [term for term, is_alone in zip(terms.late, alone, strict=True) if not is_alone]
        early = reduce(and_, terms.early) if terms.early else None
        return Plan(early, self._passing(of_feature), all_of(late), frozenset(names_in(late)))

    def _passing(self, terms: list[pl.Expr]) -> np.ndarray | None:
        """Which features satisfy all terms, ascending; None for all."""
        condition = all_of(terms)
        return None if condition is None else passing(pl.DataFrame({"feature": np.arange(self.width)}), condition)

    def indexed(self, features: np.ndarray | None) -> Indexed | None:
        """What the indexes say of some features, of all for None; None where the codes are to be scanned."""
        if features is None or not self._expected(features).are_few:
            return None
        found = Indexed(*_core.indexed_units(self.snapshot, self.site, features.view(np.uint8), available_threads()))
        self.tell_of_indexes(found)
        return found if found.answered.size else None

    def walk(
        self,
        early: pl.Expr | None,
        cells: list[str],
        features: np.ndarray | None,
        indexed: Indexed | None,
        most: int = _UNITS,
    ) -> Iterator[pl.DataFrame]:
        """Units of some features (None for all) in rows that satisfy a predicate over metadata, with some columns.

        Those that indexes found, and of the groups that these do not answer for what a scan finds. Without `indexed`
        all codes are scanned.
        """
        if indexed is None:
            yield from self._scanned(early, cells, features, None, None, most)
            return
        if not self.scan.plain:
            # a row may have several values: what it shows decides, and its units are looked up
            unknown = [group for group, known in self._known(indexed) if not known]
            hits = Hits(self.scan.cells, self.site, np.unique(indexed.rows), unknown)
            yield from self._scanned(early, cells, features, hits, indexed, most)
            return
        for known, groups in groupby(self._known(indexed), key=itemgetter(1)):
            some = [group for group, _ in groups]
            if not known:
                hits = Hits(self.scan.cells, self.site, np.empty(0, np.int64), some)
                yield from self._scanned(early, cells, features, hits, indexed, most)
                continue
            here = indexed.between(some[0].number, some[-1].number)
            if early is None and cells in ([], ["row"]) and all(group.kind == "own" for group in some):
                # their names say all that is asked, and the indexes leave out what is hidden
                rows = [pl.Series("row", indexed.rows[here])] if cells else []
                yield as_frame([*rows, *(series[here] for series in indexed.columns)])
                continue
            for metadata, which in self.scan.found(early, cells, indexed.rows[here]):
                units = [series[here] for series in indexed.columns]
                units = [series[which] if isinstance(which, slice) else taken(series, which) for series in units]
                yield as_frame([*metadata.get_columns(), *units])

    def _known(self, indexed: Indexed) -> list[tuple[Group, bool]]:
        """The groups that hold the site, and whether indexes answered for them."""
        return list(zip(self.scan.holding, indexed.answers(self._numbers).tolist(), strict=True))

    @cached_property
    def _numbers(self) -> np.ndarray:
        """The numbers of the groups that hold the site."""
        return np.array([group.number for group in self.scan.holding], dtype=np.int64)

    def _names(self, groups: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The names of the rows at these places."""
        order = np.argsort(groups, kind="stable")
        names = np.empty(groups.size, np.int64)
        bounds = np.searchsorted(groups[order], self._numbers)
        for group, low, high in zip(self.scan.holding, bounds, [*bounds[1:], groups.size], strict=True):
            at = positions[order[low:high]]
            names[order[low:high]] = (
                at + group.first if group.kind == "own" else self.scan.cells.names(group.number)[at]
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
        mask = None if features is None else self.only(features)
        places = self.scan.places(early, cells, hits)
        for metadata, groups, positions in places if hits is None else gathered(places):
            start = 0
            while start < groups.size:
                some = slice(start, start + _ROWS)
                count, units = self.units_of(groups[some], positions[some], mask, indexed, most)
                at = units["at"].to_numpy() + start
                yield as_frame([taken(metadata[name], at) for name in cells] + [units["feature"], units["value"]])
                start += count

    def units_of(
        self, groups: np.ndarray, positions: np.ndarray, mask: np.ndarray | None, indexed: Indexed | None, most: int
    ) -> tuple[int, pl.DataFrame]:
        """Units of the first rows, until `most` or more were read: how many rows; `at` (which), `feature`, `value`."""
        scanned = np.arange(groups.size) if indexed is None else np.flatnonzero(~indexed.answers(groups))
        count, units = groups.size, pl.DataFrame()
        if scanned.size or indexed is None:
            lies = [part[scanned].astype(np.int64).view(np.uint8) for part in (groups, positions)]
            read, batch = _core.codes_at(self.snapshot, self.site, lies[0], lies[1], mask, most)
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
