"""The wide frame: a Polars IO source over the row groups of a run.

What Polars asks for is answered exactly, since it does not check again: `n_rows` counts over all batches, and all
terms of the predicate are applied. Terms over metadata alone are evaluated by Polars on metadata alone, and vectors are
fetched only for the rows that survive. No expression is ever translated.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lamina.runs.scan.attached import Attached
from lamina.runs.scan.cells import Cells, as_frame, taken
from lamina.runs.scan.groups import Group, InOrder, Span, spans, spans_of_few
from lamina.runs.scan.hits import FEW, Hits
from lamina.runs.scan.predicates import Memory, all_of, names_in, passing, split
from lamina.runs.scan.types import row_bytes
from lamina.runs.scan.values import Values
from lamina.runs.scan.zones import may_pass

BATCH_BYTES = 64 << 20
"""Most bytes of vectors that a batch holds, slots without a value too, and of metadata that are looked at together."""


_PLANS = 16
"""How many questions a frame remembers the plans of."""


class Plan(NamedTuple):
    """How a predicate is answered: by its terms over metadata, in these groups; then by the others, on vectors."""

    early: pl.Expr | None
    tested: list[str]
    late: pl.Expr | None
    late_names: frozenset[str]
    groups: InOrder


class Scan:
    """One wide frame: which sites, which columns, which groups.

    Args:
        cells: The metadata of the snapshot.
        sites: The sites and their types.
        columns: The metadata columns and their types.
        groups: The groups to look at, in order of their first row, attached ones among them.
        bits: Show bf16 and f8 as their bits.
    """

    def __init__(
        self,
        cells: Cells,
        sites: dict[str, pl.DataType],
        columns: dict[str, pl.DataType],
        groups: Sequence[Group],
        *,
        bits: bool = False,
    ) -> None:
        self.cells = cells
        self._sites = sites
        self._columns = {"row": pl.Int64(), **columns}
        self._attached = Attached(cells, sites, groups)
        self._values = Values(cells, sites, self._attached, bits=bits)
        self._all = groups
        self.groups = InOrder(self._with_rows(groups))
        self._plans = Memory[Plan](_PLANS)

    def _with_rows(self, groups: Sequence[Group]) -> list[Group]:
        """The groups that made the rows: those with a site of the frame, or with rows that one is attached to."""
        firsts, lasts = self._attached.spans()

        def is_touched(group: Group) -> bool:
            at = int(np.searchsorted(firsts, group.last, side="right")) - 1
            return at >= 0 and bool(lasts[at] >= group.first)

        own = (group for group in groups if group.kind != "attached")
        return [g for g in own if not self._sites.keys().isdisjoint(g.sites) or (firsts.size and is_touched(g))]

    def frame(self) -> pl.LazyFrame:
        """The LazyFrame; nothing is read before it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(self._columns | self._sites), is_pure=True)

    def selection(self, predicate: pl.Expr | None) -> Iterator[tuple[int, np.ndarray | None]]:
        """Where the rows of the frame's one site lie that pass: group by group their positions, or None for all.

        In row order; a group stands there several times where rows of others lie between its own. Positions are int64.
        Vectors are read only where the predicate names the site.
        """
        (site,) = self._sites
        plan = self._plan(predicate)
        cells = [name for name in self._columns if name in plan.late_names]
        rows = {group.number: group.rows for group in self._all}
        for span, at, metadata in self._surviving(plan, cells):
            if at is None and plan.late is None and self._values.is_plain(span, site):
                yield from ((number, None) for number in span.numbers)
                continue
            count = span.rows if at is None else at.size
            for start in range(0, count, step := self._batch_rows([site] if plan.late is not None else [], None)):
                some = _slice(at, start, min(start + step, count))
                if plan.late is not None:
                    vectors = self._values.vectors(span, site, some)
                    # a frame without columns has no rows
                    batch = metadata.slice(start, step).with_columns(vectors) if cells else vectors.to_frame()
                    some = some[passing(batch, plan.late)]
                groups, positions = self._values.places(span, site, some)
                cuts = np.flatnonzero(np.diff(groups)) + 1
                for lies in np.split(np.arange(groups.size), cuts) if groups.size else []:
                    number, inside = int(groups[lies[0]]), positions[lies]
                    whole = inside.size == rows[number] and bool((np.diff(inside) == 1).all())
                    yield number, None if whole else np.ascontiguousarray(inside)

    def places(
        self, predicate: pl.Expr | None, cells: Sequence[str], hits: Hits | None = None
    ) -> Iterator[tuple[pl.DataFrame, np.ndarray, np.ndarray]]:
        """Where the values of the frame's one site lie, of the rows that pass a predicate over metadata alone.

        In row order: some columns of the rows, and of each its group and its position there. With `hits` no others.
        """
        (site,) = self._sites
        for span, at, metadata in self._surviving(self._plan(predicate), cells, hits):
            groups, positions = self._values.places(span, site, at)
            if hits is not None and (groups < 0).any():
                there = np.flatnonzero(groups >= 0)
                metadata, groups, positions = _taken(metadata, there), groups[there], positions[there]
            yield metadata, groups, positions

    def found(
        self, predicate: pl.Expr | None, cells: Sequence[str], names: np.ndarray
    ) -> Iterator[tuple[pl.DataFrame, slice | np.ndarray]]:
        """Of rows by their names, ascending and as often as they are wanted, those that are shown and pass a predicate.

        Whether they hold the site's value is not looked at. In order: some columns of the rows, and which they are.
        """
        plan = self._plan(predicate)
        groups, are_few = plan.groups.where(plan.groups.holding(names)), names.size <= FEW
        for span in spans_of_few(self.cells, groups, FEW) if are_few else spans(self.cells, groups, FEW):
            frame = span.cells if are_few else span.frame
            low, high = np.searchsorted(names, (span.first, span.last + 1)).tolist()
            which, at = span.find(names[low:high])
            shown = self._values.shown(span, at)
            if shown is not None:
                which, at = np.arange(high - low)[which][shown], at[shown]
            if plan.early is not None:
                passed = passing(frame(plan.tested or ["row"], at), plan.early) if at.size else at
                which, at = np.arange(high - low)[which][passed], at[passed]
            if at.size:
                which = slice(low, high) if isinstance(which, slice) else which + low
                yield frame(cells, at), which

    @cached_property
    def holding(self) -> list[Group]:
        """The groups that hold the frame's one site."""
        (site,) = self._sites
        return [group for group in self._all if site in group.sites]

    @cached_property
    def plain(self) -> bool:
        """Whether the rows of the groups that hold the site follow each other in order, so that none has two values."""
        apart = all(one.last < other.first for one, other in pairwise(self.holding))
        return apart and all(group.kind == "own" or self.cells.ascend(group.number) for group in self.holding)

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Generator[pl.DataFrame, None, None]:
        wanted = list(self._columns | self._sites) if with_columns is None else with_columns
        plan = self._plan(predicate)
        needed = plan.late_names.union(wanted)
        cells = [name for name in self._columns if name in needed]
        sites = [name for name in self._sites if name in needed]
        left = n_rows
        if left == 0:
            return
        for span, at, metadata in self._surviving(plan, cells):
            count = span.rows if at is None else at.size
            for start in range(0, count, step := self._batch_rows(sites, batch_size)):
                stop = min(start + step, count)
                if left is not None and plan.late is None:
                    stop = min(stop, start + left)
                some = None if at is None and stop - start == span.rows else _slice(at, start, stop)
                vectors = [self._values.vectors(span, name, some) for name in sites]
                some_cells = metadata if stop - start == metadata.height else metadata.slice(start, stop - start)
                batch = some_cells.hstack(vectors) if cells else pl.DataFrame(vectors)
                if plan.late is not None:
                    batch = _taken(batch, passing(batch, plan.late))
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.height
                # not select(): Polars would make a query of its own of it
                yield batch if batch.columns == wanted else batch[wanted]
                if left == 0:
                    return

    def _plan(self, predicate: pl.Expr | None) -> Plan:
        """How to answer; remembered, since the same is asked of a frame again and again."""
        return self._plans.of(predicate, lambda: self._planned(predicate))

    def _planned(self, predicate: pl.Expr | None) -> Plan:
        terms = split(predicate, self._columns)
        tested = [name for name in self._columns if name in names_in(terms.early)]
        late_names = frozenset(names_in(terms.late))
        return Plan(all_of(terms.early), tested, all_of(terms.late), late_names, self._promising(terms.early))

    def _surviving(
        self, plan: Plan, cells: Sequence[str], hits: Hits | None = None
    ) -> Iterator[tuple[Span, np.ndarray | None, pl.DataFrame]]:
        """Span by span the rows of the frame that pass, None for all of the span's, and these cells of them.

        Of `hits` those that are shown, whatever they hold.
        """
        first = plan.tested
        most = BATCH_BYTES // (16 * max(1, len({*first, *cells})))
        are_few = hits is not None and hits.are_few
        groups, cut, look = plan.groups.groups, *((spans_of_few, Span.cells) if are_few else (spans, Span.frame))
        if hits is not None:
            groups, most = hits.among(plan.groups), min(most, FEW)
        for span in cut(self.cells, groups, most):
            if hits is None:
                at = self._values.present(span)
            else:
                at = hits.at(span)
                shown = self._values.shown(span, at)
                at = at if shown is None else shown if at is None else at[shown]
            if at is not None and not at.size:
                continue
            tested = None
            if plan.early is not None:
                tested = look(span, first or ["row"], at)
                passed = passing(tested, plan.early)
                if passed.size < tested.height:
                    tested = _taken(tested, passed)
                    at = passed if at is None else at[passed]
            if at is not None:
                if not at.size:
                    continue
                # what is kept of the metadata is kept by span
                span, at = span.narrow(at) if hits is None else (span, at)
                at = None if at.size == span.rows else at
            rest = [name for name in cells if name not in first]
            kept = [] if tested is None else [tested[name] for name in cells if name in first]
            more = look(span, rest, at).get_columns() if rest else []
            yield span, at, as_frame([*kept, *more])

    def _promising(self, early: list[pl.Expr]) -> InOrder:
        """The groups of which their zones do not say that no row passes."""
        known = [kept for term in early if (kept := self.cells.decided(term, may_pass)) is not None]
        if not known:
            return self.groups
        return InOrder(self.groups.where(np.logical_and.reduce(known)[self.groups.numbers]))

    def _batch_rows(self, sites: Sequence[str], batch_size: int | None) -> int:
        size = sum(row_bytes(self._sites[name]) for name in sites)
        rows = max(1, BATCH_BYTES // max(size, 64))
        return rows if batch_size is None else max(1, min(rows, batch_size))


def _slice(at: np.ndarray | None, start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int64) if at is None else at[start:stop]


def _taken(frame: pl.DataFrame, at: np.ndarray) -> pl.DataFrame:
    """Rows of a frame at ascending positions; neighbors are not copied."""
    if at.size and at[-1] - at[0] + 1 == at.size:
        return frame.slice(at[0], at.size)
    return as_frame([taken(series, at) for series in frame.get_columns()])
