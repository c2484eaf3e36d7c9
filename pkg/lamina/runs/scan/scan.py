"""The wide frame: a Polars IO source over the row groups of a run.

What Polars asks for is answered exactly, since it does not check again: `n_rows` counts over all batches, and all
terms of the predicate are applied. Terms over metadata alone are evaluated by Polars on metadata alone, and vectors are
fetched only for the rows that survive. No expression is ever translated.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from lamina import _core
from lamina.errors import LaminaWarning
from lamina.runs.scan.attached import Attached
from lamina.runs.scan.cells import Cells
from lamina.runs.scan.groups import Group, Span, spans
from lamina.runs.scan.predicates import names_in, passing, split
from lamina.runs.scan.types import row_bytes
from lamina.runs.scan.zones import may_pass

BATCH_BYTES = 64 << 20
"""Most bytes of vectors that a batch holds, slots without a value too, and of metadata that are looked at together."""


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
        self._cells = cells
        self._sites = sites
        self._columns = {"row": pl.Int64(), **columns}
        self._widen = not bits
        self._attached = Attached(cells, sites, groups)
        self._all = groups
        self._groups = self._with_rows(groups)
        self._told: set[str] = set()

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

    def selection(self, predicate: pl.Expr | None) -> list[tuple[int, np.ndarray | None]]:
        """Where the rows of the frame's one site lie that pass: group by group their positions, or None for all.

        In row order; a group stands there several times where rows of others lie between its own. Positions are int64.
        Vectors are read only where the predicate names the site.
        """
        (site,) = self._sites
        terms = split(predicate, self._columns)
        cells = [name for name in self._columns if name in names_in(terms.late)]
        rows = {group.number: group.rows for group in self._all}
        found: list[tuple[int, np.ndarray | None]] = []
        for span, at, metadata in self._surviving(terms.early, cells):
            count = span.rows if at is None else at.size
            for start in range(0, count, step := self._batch_rows([site] if terms.late else [], None)):
                some = _slice(at, start, min(start + step, count))
                if terms.late:
                    batch = metadata.slice(start, step).with_columns(self._vectors(span, site, some))
                    some = some[passing(batch, terms.late).to_numpy()]
                groups, positions = self._places(span, site, some)
                cuts = np.flatnonzero(np.diff(groups)) + 1
                for lies in np.split(np.arange(groups.size), cuts) if groups.size else []:
                    number, inside = int(groups[lies[0]]), positions[lies]
                    whole = inside.size == rows[number] and bool((np.diff(inside) == 1).all())
                    found.append((number, None if whole else np.ascontiguousarray(inside)))
        return found

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Generator[pl.DataFrame, None, None]:
        wanted = list(self._columns | self._sites) if with_columns is None else with_columns
        terms = split(predicate, self._columns)
        needed = {*wanted, *names_in(terms.late)}
        cells = [name for name in self._columns if name in needed]
        sites = [name for name in self._sites if name in needed]
        left = n_rows
        if left == 0:
            return
        for span, at, metadata in self._surviving(terms.early, cells):
            count = span.rows if at is None else at.size
            for start in range(0, count, step := self._batch_rows(sites, batch_size)):
                stop = min(start + step, count)
                if left is not None and not terms.late:
                    stop = min(stop, start + left)
                some = None if at is None and stop - start == span.rows else _slice(at, start, stop)
                vectors = [self._vectors(span, name, some) for name in sites]
                batch = metadata.slice(start, stop - start).hstack(vectors) if cells else pl.DataFrame(vectors)
                if terms.late:
                    batch = batch[passing(batch, terms.late)]
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.height
                yield batch.select(wanted)
                if left == 0:
                    return

    def _surviving(
        self, early: list[pl.Expr], cells: Sequence[str]
    ) -> Iterator[tuple[Span, np.ndarray | None, pl.DataFrame]]:
        """Span by span the rows of the frame that pass, None for all of the span's, and these cells of them."""
        first = [name for name in self._columns if name in names_in(early)]
        most = BATCH_BYTES // (16 * max(1, len({*first, *cells})))
        for span in spans(self._cells, self._promising(early), most):
            at = self._present(span)
            tested = None
            if early:
                tested = self._cells.frame(span, first or ["row"], at)
                passed = passing(tested, early).to_numpy()
                if passed.size < tested.height:
                    tested = tested[passed]
                    at = passed.astype(np.int64) if at is None else at[passed]
            if at is not None:
                if not at.size:
                    continue
                span, at = span.narrow(at)
                at = None if at.size == span.rows else at
            rest = [name for name in cells if name not in first]
            more = self._cells.frame(span, rest, at) if rest else pl.DataFrame()
            kept = pl.DataFrame() if tested is None else tested.select(name for name in cells if name in first)
            yield span, at, kept.hstack(more.get_columns()) if kept.width else more

    def _promising(self, early: list[pl.Expr]) -> list[Group]:
        """The groups of which their zones do not say that no row passes."""
        groups = self._groups
        for term in early:
            kept = may_pass(term, self._cells.zones)
            if kept is not None:
                groups = [group for group in groups if kept[group.number]]
        return groups

    def _present(self, span: Span) -> np.ndarray | None:
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
            values = self._attached.values(site, names[0], names[-1])
            present[_found(values.names, names)[1]] = True
        for start, group in zip(span.starts, span.groups, strict=False):
            hidden = self._cells.hidden(group.number)
            if hidden is not None:
                which = np.arange(start, start + group.rows)[hidden]
                present[which if span.order is None else np.argsort(span.order)[which]] = False
        return np.flatnonzero(present)

    def _places(self, span: Span, site: str, at: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The groups that hold the site's values of rows, -1 where there is none, and the positions there."""
        which, positions = span.places(at)
        numbers = [group.number if site in group.sites else -1 for group in span.groups]
        groups = np.array(numbers, dtype=np.int64)[which]
        for index, group in enumerate(span.groups):
            absent = self._cells.hidden(group.number, site) if site in group.sites else None
            if absent is not None:
                groups[(which == index) & absent[positions]] = -1
        if site in self._attached.sites and groups.size:
            names = span.names(at)
            values = self._attached.values(site, names[0], names[-1])
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

    def _vectors(self, span: Span, site: str, at: np.ndarray | None) -> pl.Series:
        """The site's values of rows of a span; all by default."""
        snapshot = self._cells.snapshot
        if site not in self._attached.sites:
            if all(site not in group.sites for group in span.groups):
                rows = span.rows if at is None else at.size
                return pl.Series(site, [None], dtype=self._sites[site]).new_from_index(0, rows)
            group = span.groups[0]
            plain = len(span.groups) == 1 and span.order is None and self._cells.hidden(group.number, site) is None
            if at is None and plain:
                return pl.Series(site, snapshot.vectors(group.number, site, widen=self._widen))
        groups, positions = self._places(span, site, at)
        lies = groups.astype(np.int64, copy=False).view(np.uint8), positions.astype(np.int64, copy=False).view(np.uint8)
        return pl.Series(site, _core.vectors_at(snapshot, site, *lies, widen=self._widen))

    def _batch_rows(self, sites: Sequence[str], batch_size: int | None) -> int:
        size = sum(row_bytes(self._sites[name]) for name in sites)
        rows = max(1, BATCH_BYTES // max(size, 64))
        return rows if batch_size is None else max(1, min(rows, batch_size))


def _slice(at: np.ndarray | None, start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int64) if at is None else at[start:stop]


def _found(some: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where names that both have stand in the one, and in the other; both ascend."""
    if not some.size:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    at = np.minimum(np.searchsorted(some, names), some.size - 1)
    here = np.flatnonzero(some[at] == names)
    return at[here], here
