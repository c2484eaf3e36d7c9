"""Copies of a site in shuffled order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from lamina.errors import SchemaError
from lamina.progress import track
from lamina.rows.epochs import Plan
from lamina.runs.buffers import flatten
from lamina.runs.columns import as_values, column
from lamina.runs.layout import RowSet

if TYPE_CHECKING:
    from lamina.rows import Rows
    from lamina.runs.run import Run

_KEY = "preshuffled"
_COPIED = 64 << 20


def write(run: Run, path: str | Path, site: str, rows: Rows, seed: int) -> Run:
    """Write the rows into a new run, in the exact order of epoch 0 of the seed."""
    if site in run._wide.sparse:
        raise SchemaError(f"site {site!r} holds sparse codes", hint="they cannot be preshuffled")
    size = max(1, _COPIED // max(1, rows.width * rows.dtype.itemsize))
    plan = Plan.of(rows, size, seed=seed, order="exact", drop_last=False)
    shape = next(shape for name, _, shape, *_ in run._snapshot.sites() if name == site)
    said = {"site": site, "run": run.id, "seed": seed, "rows": len(rows)}
    copy = type(run).create(path, config={_KEY: said})
    names = [name for name, _ in run._snapshot.columns()]
    metadata = rows.metadata(["row", *names]).rename({"row": "original_row"})
    metadata = metadata.select(column for column in metadata if column.null_count() < len(column) or not len(column))
    with copy.writer() as writer:
        spans = list(plan.spans(0))
        for vectors, columns in track(_pieces(rows, plan, spans, metadata), f"preshuffling {site}", len(spans)):
            # as a row set: `append` takes one step for all of its rows
            flat = flatten(vectors, site)
            made = [column(of.name, as_values(of.name, of)) for of in columns]
            writer._core.append([RowSet(len(vectors), [(site, flat.dtype, tuple(shape), flat.bytes)], made)])
    return copy.refresh()


def _pieces(
    rows: Rows, plan: Plan, spans: list[tuple[int, int]], metadata: pl.DataFrame
) -> Iterator[tuple[Any, list[pl.Series]]]:
    order = plan.order_of(0)
    for start, stop in spans:
        at = plan.positions(order, start, stop)
        yield rows.gather(at), metadata[at].get_columns()


def is_preshuffled(config: dict[str, Any], site: str) -> bool:
    """Whether `write` made the run's site."""
    return says_preshuffled(config) and config[_KEY].get("site") == site


def says_preshuffled(config: dict[str, Any]) -> bool:
    """Whether `write` made the run."""
    return isinstance(config.get(_KEY), dict)
