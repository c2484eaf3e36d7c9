"""How rows from elsewhere get into a run: wholly into a new one, piece by piece into one that is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import LaminaError, SchemaError
from lamina.interchange.blocks import Block, Table
from lamina.interchange.drafts import draft_of, publish
from lamina.paths import path_of
from lamina.progress import track
from lamina.runs import Run, Writer

Target = Run | str | Path
"""Where rows go: a run, or the path of one, or a path where there is nothing yet."""


def arrive(run: Target, tables: Sequence[Table], *, step: int, source: str | None, what: str, progress: bool) -> int:
    """Appends all rows of the tables to a run, and returns how many there were.

    Args:
        run: The run; a path where there is nothing becomes a run when all rows are in it.
        tables: What to append. Rows without `example` are numbered, behind all examples that the run holds.
        step: The step of rows that name none.
        source: The source of rows that name none.
        what: What is imported, for the bar and for errors.
        progress: False shows no bar.

    Raises:
        NotARunError: The path holds something that is no run.
        SchemaError: Rows that do not fit the run.
    """
    if isinstance(run, Run):
        return _append(run, tables, step, source, what, progress)
    path = path_of(run)
    if path.exists():
        return _append(Run(path), tables, step, source, what, progress)
    draft = draft_of(path)
    try:
        rows = _append(Run.create(draft, config={"imported": what}), tables, step, source, what, progress)
        publish(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return rows


def _append(run: Run, tables: Sequence[Table], step: int, source: str | None, what: str, progress: bool) -> int:
    blocks = (block for table in tables for block in table.blocks())
    numbering = _Numbering(run)
    counts = [table.parts for table in tables]
    total = None if None in counts else sum(count or 0 for count in counts)
    rows = 0
    writer = run.writer()
    try:
        with writer:
            for block in track(blocks, f"importing {what}", total, progress):
                rows += _write(writer, _completed(block, step, source, numbering))
    except BaseException as error:
        _take_back(run, writer, error)
        raise
    run.refresh()
    return rows


def _take_back(run: Run, writer: Writer, error: BaseException) -> None:
    """Hide what an import that failed has written: all of its writer's rows."""
    first = writer.ordinal << 40
    try:
        run.refresh().delete(rows=range(first, first + (1 << 40)))
    except LaminaError as failure:
        error.add_note(f"rows from {first} on, which this import wrote, could not be taken back: {failure}")


def _completed(block: Block, step: int, source: str | None, numbering: _Numbering) -> Block:
    """The block with what every row has."""
    columns = {name: values for name, values in block.columns.items() if name != "row"}
    columns.setdefault("step", step)
    if source is not None:
        columns.setdefault("source", source)
    if "example" not in columns:
        columns["example"] = numbering.next(block.rows)
    return block._replace(columns=columns)


def _write(writer: Writer, block: Block) -> int:
    """Append a block, one step after another."""
    steps = block.columns.pop("step")
    for start, stop, step in _runs_of(steps, block.rows):
        whole = stop - start == block.rows
        sites = block.sites if whole else {name: values[start:stop] for name, values in block.sites.items()}
        columns = {
            name: values
            if whole or isinstance(values, str) or not hasattr(values, "__getitem__")
            else values[start:stop]
            for name, values in block.columns.items()
        }
        writer.append(sites, step=step, **columns)
    leads = {
        tuple(values.shape[:2]) if values.ndim == 3 else tuple(values.shape[:1]) for values in block.sites.values()
    }
    return sum(int(np.prod(lead)) for lead in leads)


def _runs_of(steps: Any, rows: int) -> Iterator[tuple[int, int, int]]:
    """Where the step changes: start, stop, step."""
    if isinstance(steps, int):
        yield 0, rows, steps
        return
    values = pl.Series("step", steps)
    if values.null_count() or not (values.dtype.is_integer() or not rows):
        raise SchemaError("the column `step` has entries that are no integers", hint="leave it out with columns=")
    array = values.to_numpy()
    at = [0, *(np.flatnonzero(np.diff(array)) + 1).tolist(), rows]
    for start, stop in pairwise(at):
        yield start, stop, int(array[start]) if rows else 0


class _Numbering:
    """Numbers for rows that name no example: behind all that the run holds."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next: int | None = None

    def next(self, rows: int) -> np.ndarray:
        if self._next is None:
            self._next = self._first()
        self._next += rows
        return np.arange(self._next - rows, self._next)

    def _first(self) -> int:
        frame = self._run.activations() if self._run.steps() else pl.LazyFrame()
        kind = frame.collect_schema().get("example", pl.Null)
        if kind == pl.String:
            raise SchemaError(
                "the examples of this run are texts, and the source names none", hint="name them with example="
            )
        if not kind.is_integer():
            return 0
        last = frame.select(pl.col("example").max()).collect().item()
        return 0 if last is None else last + 1
