"""Frames of what stands beside the rows: sites, metrics, notes, examples, sources."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import DamagedError
from lamina.runs.scan import COLUMN_TYPES

if TYPE_CHECKING:
    from lamina._core import Snapshot

_SITES = {
    "site": pl.String,
    "kind": pl.String,
    "dtype": pl.String,
    "shape": pl.List(pl.Int64),
    "rows": pl.Int64,
    "steps": pl.Int64,
    "bytes": pl.Int64,
    "non_finite": pl.Int64,
}
_SOURCES = {
    "run": pl.String,
    "id": pl.String,
    "created": pl.Datetime("us", "UTC"),
    "config": pl.String,
    "writer_shift": pl.Int64,
    "row_shift": pl.Int64,
}
_NOTES = {"time": pl.Datetime("us", "UTC"), "step": pl.Int64, "text": pl.String}
_KINDS = ("input", "output", "grad")


def sites(snapshot: Snapshot, steps_of: Callable[[list[str]], set[int]]) -> pl.DataFrame:
    """One row a site; `steps_of` gives the steps of the rows that have one of some sites."""
    rows = [
        (name, "sparse" if sparse else _kind(name), dtype, list(shape), rows, len(steps_of([name])), size, non_finite)
        for name, dtype, shape, rows, size, non_finite, sparse in snapshot.sites()
    ]
    return pl.DataFrame(rows, schema=_SITES, orient="row")


def _kind(name: str) -> str:
    last = name.rsplit(".", 1)[-1].split("[", 1)[0]
    return last if last in _KINDS else "value"


def notes(snapshot: Snapshot) -> pl.DataFrame:
    """One row a note, in order of time."""
    return pl.DataFrame(snapshot.notes(), schema=_NOTES, orient="row").sort("time", maintain_order=True)


def metrics(snapshot: Snapshot) -> pl.LazyFrame:
    """One row a logged value, in order of writing."""
    return pl.DataFrame(snapshot.metrics()).lazy()


def written_examples(snapshot: Snapshot, column: str, key: list[str]) -> pl.DataFrame:
    """What was written last, null or not, of a column of the examples, for those that were given it."""
    types = {name: COLUMN_TYPES[kind] for name, kind in snapshot.columns("examples")}
    types = {name: types.get(name, pl.Int64()) for name in (*key, column)}
    batches = [pl.DataFrame(batch) for batch in snapshot.examples()]
    given = [
        batch.with_columns(pl.lit(None, types[name]).alias(name) for name in key if name not in batch.columns)
        for batch in batches
        if column in batch.columns
    ]
    frame = pl.concat([batch.select(*types) for batch in given]) if given else pl.DataFrame(schema=types)
    return frame.unique(key, keep="last", maintain_order=True)


def examples(snapshot: Snapshot) -> pl.LazyFrame:
    """One row an example (and position): of every column the value that was written last."""
    columns = {name: COLUMN_TYPES[kind] for name, kind in snapshot.columns("examples")}
    batches = [pl.DataFrame(batch) for batch in snapshot.examples()]
    if not batches:
        return pl.LazyFrame(schema=columns or {"example": pl.Int64})
    key = [name for name in ("example", "position") if name in columns]
    if "example" not in key:
        raise DamagedError(
            "the examples have no column `example`: its declaration contradicts what was written", "commits"
        )
    keyed = [
        batch.with_columns(pl.lit(None, columns[name]).alias(name) for name in key if name not in batch.columns)
        for batch in batches
    ]
    result = pl.concat([batch.select(key) for batch in keyed]).unique(maintain_order=True)
    together: dict[tuple[int, ...], list[str]] = {}
    for name in columns:
        if name not in key:
            together.setdefault(tuple(i for i, batch in enumerate(batches) if name in batch.columns), []).append(name)
    for members, names in together.items():
        if members:
            last = pl.concat([keyed[i].select(*key, *names) for i in members]).unique(key, keep="last")
            result = result.join(last, on=key, how="left", nulls_equal=True, maintain_order="left")
    return result.select(*key, *(name for name in columns if name in result.columns and name not in key)).lazy()


def sources(snapshot: Snapshot) -> pl.DataFrame:
    """One row a run that this one was copied or merged from."""
    rows = [
        (name, key, datetime.fromtimestamp(created / 1e6, UTC), config, shift, shift << 40)
        for key, name, created, config, shift in snapshot.sources
    ]
    return pl.DataFrame(rows, schema=_SOURCES, orient="row")
