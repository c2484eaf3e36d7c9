"""The wide frame: a Polars IO source over the row groups of a run.

What Polars asks for is answered exactly, since it does not check again: `n_rows` counts over all batches, and the
whole predicate is applied last. Conjuncts over metadata alone are evaluated by Polars on metadata alone, and
vectors are fetched only for the rows that survive. No expression is ever translated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

if TYPE_CHECKING:
    from lamina._core import Snapshot

BATCH_BYTES = 64 << 20
"""Most bytes of vectors that one batch holds; slots without a value count."""

COLUMN_TYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "str": pl.String(),
}
_ELEMENTS: dict[str, pl.DataType] = {
    "f64": pl.Float64(),
    "f32": pl.Float32(),
    "f16": pl.Float16(),
    "bf16": pl.Float32(),
    "f8_e4m3": pl.Float32(),
    "f8_e5m2": pl.Float32(),
    "i64": pl.Int64(),
    "i32": pl.Int32(),
    "i16": pl.Int16(),
    "i8": pl.Int8(),
    "u8": pl.UInt8(),
    "bool": pl.Boolean(),
}
_AT = "__position_in_group"


class Group(NamedTuple):
    """A row group as the core lists it."""

    number: int
    first: int
    rows: int
    sites: list[str]
    least_step: int | None
    greatest_step: int | None
    kind: Literal["own", "named", "attached"]
    last: int


def site_type(dtype: str, shape: Sequence[int]) -> pl.DataType:
    """The column type of a site: bf16 and f8 widen to f32, item shapes are flattened, scalars stay scalars."""
    element = _ELEMENTS[dtype]
    return pl.Array(element, int(np.prod(shape))) if shape else element


class Scan:
    """One wide frame: which sites, which columns, which groups."""

    def __init__(
        self, snapshot: Snapshot, sites: dict[str, pl.DataType], columns: dict[str, pl.DataType], groups: list[Group]
    ) -> None:
        self._snapshot = snapshot
        self._sites = sites
        self._columns = {"row": pl.Int64(), **columns}
        self._groups = [group for group in groups if not sites.keys().isdisjoint(group.sites)]

    def frame(self) -> pl.LazyFrame:
        """The LazyFrame; nothing is read before it is collected."""
        return register_io_source(self._batches, schema=pl.Schema(self._columns | self._sites), is_pure=True)

    def selection(self, predicate: pl.Expr | None) -> list[tuple[int, np.ndarray | None]]:
        """Where the rows lie that pass: group by group their positions (int64, ascending), or None for all of its rows.

        In row order; a group of which no row passes is left out. Vectors are read only where the predicate names one.
        """
        parts = [] if predicate is None else conjuncts(predicate)
        early = None if predicate is None else self._metadata_conjuncts(predicate)
        late = [part for part in parts if not self._columns.keys() >= set(part.meta.root_names())]
        names = {name for part in parts for name in part.meta.root_names()}
        cells = [name for name in self._columns if name in names]
        sites = [name for name in self._sites if name in names]
        found = []
        for group in self._groups:
            metadata, positions = self._surviving(group, cells, early)
            if late and metadata.height:
                at = np.arange(group.rows, dtype=np.int64) if positions is None else positions
                kept = []
                for start in range(0, at.size, step := self._batch_rows(sites, None)):
                    some = np.ascontiguousarray(at[start : start + step])
                    batch = metadata.slice(start, step)
                    batch = batch.with_columns(self._vectors(group, name, some, some.size) for name in sites)
                    kept.append(some[batch.select(pl.all_horizontal(late).fill_null(False)).to_series().to_numpy()])
                positions = np.concatenate(kept)
            if positions is None or positions.size:
                found.append((group.number, None if positions is None or positions.size == group.rows else positions))
        return found

    def _batches(
        self, with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = list(self._columns | self._sites) if with_columns is None else with_columns
        early = None if predicate is None else self._metadata_conjuncts(predicate)
        needed = set(wanted) if predicate is None else {*wanted, *predicate.meta.root_names()}
        cells = [name for name in self._columns if name in needed]
        sites = [name for name in self._sites if name in needed]
        left = n_rows
        for group in self._groups:
            if left == 0:
                return
            metadata, positions = self._surviving(group, cells, early)
            for start in range(0, metadata.height, step := self._batch_rows(sites, batch_size)):
                batch = metadata.slice(start, step)
                at = (
                    None
                    if positions is None and batch.height == group.rows
                    else self._at(positions, start, batch.height)
                )
                batch = batch.with_columns(self._vectors(group, name, at, batch.height) for name in sites)
                if predicate is not None:
                    batch = batch.filter(predicate)
                if left is not None:
                    batch = batch.head(left)
                    left -= batch.height
                yield batch.select(wanted)
                if left == 0:
                    return

    def _metadata_conjuncts(self, predicate: pl.Expr) -> pl.Expr | None:
        over_metadata = [part for part in conjuncts(predicate) if self._columns.keys() >= set(part.meta.root_names())]
        return pl.all_horizontal(over_metadata) if over_metadata else None

    def _surviving(
        self, group: Group, cells: list[str], early: pl.Expr | None
    ) -> tuple[pl.DataFrame, np.ndarray | None]:
        """Metadata of the rows that are shown and pass, and their positions; None stands for all rows."""
        shown = self._shown(group)
        if early is None and shown is None:
            return self._metadata(group, cells or ["row"]), None
        first = [] if early is None else [name for name in cells if name in set(early.meta.root_names())]
        tested = self._metadata(group, first or ["row"]).with_row_index(_AT)
        if shown is not None:
            tested = tested.filter(pl.Series(shown))
        if early is not None:
            tested = tested.filter(early)
        positions = tested[_AT].to_numpy().astype(np.int64)
        rest = [name for name in cells if name not in tested.columns]
        if positions.size and rest:
            more = self._metadata(group, rest)
            tested = pl.concat([tested, more if positions.size == group.rows else more[positions]], how="horizontal")
        return tested.drop(_AT), positions

    def _shown(self, group: Group) -> np.ndarray | None:
        """Which rows show one of the sites; None stands for all."""
        masks = [self._snapshot.hidden(group.number, name) for name in self._sites if name in group.sites]
        hidden = [np.frombuffer(mask, bool) for mask in masks if mask is not None]
        return ~np.logical_and.reduce(hidden) if len(hidden) == len(masks) else None

    def _metadata(self, group: Group, names: list[str]) -> pl.DataFrame:
        return pl.DataFrame(self._snapshot.metadata(group.number, names))

    def _vectors(self, group: Group, site: str, at: np.ndarray | None, rows: int) -> pl.Series:
        if site not in group.sites:
            return pl.repeat(None, rows, dtype=self._sites[site], eager=True).alias(site)
        indices = None if at is None else at.view(np.uint8)
        vectors = pl.Series(site, self._snapshot.vectors(group.number, site, indices))
        hidden = self._snapshot.hidden(group.number, site)
        if hidden is None:
            return vectors
        shown = ~np.frombuffer(hidden, bool)
        chosen = pl.Series(shown if at is None else shown[at])
        return vectors.to_frame().select(pl.when(chosen).then(pl.col(site)).alias(site)).to_series()

    @staticmethod
    def _at(positions: np.ndarray | None, start: int, rows: int) -> np.ndarray:
        if positions is None:
            return np.arange(start, start + rows, dtype=np.int64)
        return np.ascontiguousarray(positions[start : start + rows])

    def _batch_rows(self, sites: list[str], batch_size: int | None) -> int:
        size = sum(_bytes(self._sites[name]) for name in sites)
        rows = max(1, BATCH_BYTES // max(size, 64))
        return rows if batch_size is None else max(1, min(rows, batch_size))


def _bytes(kind: pl.DataType) -> int:
    width, element = (kind.size, kind.inner) if isinstance(kind, pl.Array) else (1, kind)
    return width * {"Float64": 8, "Int64": 8, "Float16": 2, "Int16": 2, "Int8": 1, "UInt8": 1}.get(str(element), 4)


def conjuncts(predicate: pl.Expr) -> list[pl.Expr]:
    """The terms of a conjunction; the predicate itself where it is none.

    A split is accepted only if putting it together again gives an equal expression.
    """
    parts = predicate.meta.pop()
    if len(parts) == 2:
        for left, right in (parts, parts[::-1]):
            if (left & right).meta.eq(predicate):
                return conjuncts(left) + conjuncts(right)
    return [predicate]
