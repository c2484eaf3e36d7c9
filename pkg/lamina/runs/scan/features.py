"""The long frame of sparse codes: a row for each active unit.

A predicate is taken apart: its terms over metadata alone are evaluated by Polars on metadata alone, those over
`feature` alone once on all features, and what is left on the units that these two leave. All terms together are the
predicate. Where few features are left, their units come from the indexes of the segments, and from a scan of the codes
that have none.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import cached_property, reduce
from operator import and_
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lamina.runs.scan.cells import rows_of
from lamina.runs.scan.hits import Hits
from lamina.runs.scan.indexes import Indexes
from lamina.runs.scan.predicates import Memory, all_of, names_in, passing, split
from lamina.runs.scan.units import BATCH, Units, gathered

if TYPE_CHECKING:
    from pathlib import Path

    from lamina._core import Snapshot
    from lamina.runs.scan.scan import Scan

_MOST_FEATURES = 1 << 24
"""So many features terms over `feature` may be evaluated on, and pass, in any case; on more if there are as many units.
Beyond, they are evaluated on the units."""
_AT_ONCE = 1 << 22
"""Features that terms are evaluated on at once."""
_PLANS = 16
"""How many questions a frame remembers the plans of."""
_MOST_REMEMBERED = 1 << 20
"""The most features of a frame that remembers plans: they name those that are wanted."""


class Plan(NamedTuple):
    """How a predicate is answered: its terms over metadata, the features that pass (None for all), the other terms."""

    early: pl.Expr | None
    features: np.ndarray | None
    late: pl.Expr | None
    late_names: frozenset[str]


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

    Attributes:
        indexes: What the indexes say.
        units: The units of rows.
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
        self.indexes = Indexes(snapshot, path, site, [group.number for group in scan.holding])
        self.units = Units(snapshot, scan, site)
        self._columns = {"row": pl.Int64(), **columns}
        self._types = {"feature": pl.Int64(), "value": value}
        self._plans = Memory[Plan](_PLANS)

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
        return pl.DataFrame(schema=self._columns | {"value": self._types["value"]})

    def frame(self) -> pl.LazyFrame:
        """The LazyFrame; nothing is read before it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(self._columns | self._types), is_pure=True)

    def of(self, features: np.ndarray) -> Iterator[pl.DataFrame]:
        """The `row` and `feature` of the units of some features, batch by batch. No row is in two batches."""
        for units in self.units.walk(None, ["row"], features, self.indexes.units_of(features)):
            yield units.drop("value")

    def at(self, names: np.ndarray, features: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The units of some features, or of all, in rows that have codes, row after row: which row, feature, value."""
        ascending, back = np.unique(names, return_inverse=True)
        (place,) = gathered(self.scan.places(None, [], Hits(self.scan.cells, self.site, ascending)), names.size + 1)
        _, groups, positions = place
        _, units = self.units.of(groups[back], positions[back], features, None, names.size * self.width + 1)
        return units["at"].to_numpy(), units["feature"].to_numpy(), units["value"].to_numpy()

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Generator[pl.DataFrame, None, None]:
        wanted = list(self._columns | self._types) if with_columns is None else with_columns
        plan = self._plan(predicate)
        if n_rows == 0 or (plan.features is not None and not plan.features.size):
            return
        needed = plan.late_names.union(wanted)
        cells = [name for name in self._columns if name in needed]
        left = n_rows
        most = min(BATCH, batch_size or BATCH, BATCH if left is None or plan.late is not None else left)
        indexed = None if plan.features is None else self.indexes.units_of(plan.features)
        for batch in self.units.walk(plan.early, cells, plan.features, indexed, most):
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
        early = reduce(and_, terms.early) if terms.early else None
        alone = [{*term.meta.root_names()} == {"feature"} for term in terms.late]
        features = self._passing([term for term, is_alone in zip(terms.late, alone, strict=True) if is_alone])
        late = [term for term, is_alone in zip(terms.late, alone, strict=True) if features is None or not is_alone]
        return Plan(early, features, all_of(late), frozenset(names_in(late)))

    def _passing(self, terms: list[pl.Expr]) -> np.ndarray | None:
        """Which features satisfy all terms, ascending; None if there are no terms, or too many features."""
        condition = all_of(terms)
        if condition is None or (self.width > _MOST_FEATURES and self.width > self._active):
            return None
        found, count = [np.empty(0, np.int64)], 0
        for start in range(0, self.width, _AT_ONCE):
            some = np.arange(start, min(start + _AT_ONCE, self.width))
            found.append(some[passing(pl.DataFrame({"feature": some}), condition)])
            if (count := count + found[-1].size) > _MOST_FEATURES:
                return None
        return np.concatenate(found)

    @cached_property
    def _active(self) -> int:
        """How many units are active, or somewhat fewer: they have at most 8 bytes, and each row 4."""
        return next((size - 4 * rows) // 8 for name, _, _, rows, size, *_ in self.snapshot.sites() if name == self.site)
