"""Polars SQL over what a run holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import date, datetime

import polars as pl

from lamina.cli.show import placeholders
from lamina.errors import LaminaError
from lamina.runs import Run, Runs

_ROWS = 100
"""Most rows of an answer printed as a table."""
_LISTED = 24
"""Most columns of a table named in an error."""


def tables(opened: Run | Runs) -> dict[str, pl.LazyFrame]:
    """Return the tables that a query can name; several runs give each a column `run`."""
    return {
        "metrics": opened.metrics(),
        "sites": opened.sites().lazy(),
        "examples": opened.examples(),
        "checkpoints": opened.checkpoints(),
        "activations": opened.activations(),
    }


def answer(opened: Run | Runs, sql: str) -> pl.DataFrame:
    """Return the answer to a query.

    Raises:
        LaminaError: The SQL is wrong, or names a table or column that is not there; the hint lists those that are.
    """
    return _collected(opened, sql, shown=False)


def shown_answer(opened: Run | Runs, sql: str) -> tuple[pl.DataFrame, bool]:
    """Return the first 100 rows of an answer, with vectors as their shapes and unread, and whether there are more."""
    frame = _collected(opened, sql, shown=True)
    return frame.head(_ROWS), frame.height > _ROWS


def records(frame: pl.DataFrame) -> Iterator[str]:
    """Yield the lines of a JSON array with an object a row: dates in ISO form, NaN and infinity as null."""
    if frame.is_empty():
        yield "[]"
        return
    for k, row in enumerate(frame.iter_rows(named=True)):
        text = json.dumps({name: _json(value) for name, value in row.items()}, allow_nan=False, ensure_ascii=False)
        yield ("[" if k == 0 else " ") + text + ("]" if k == frame.height - 1 else ",")


def _collected(opened: Run | Runs, sql: str, *, shown: bool) -> pl.DataFrame:
    named = tables(opened)
    try:
        frame = pl.SQLContext(named).execute(sql)
        if shown:
            frame = frame.with_columns(placeholders(frame.collect_schema())).head(_ROWS + 1)
        return frame.collect()
    except pl.exceptions.PolarsError as error:
        # What follows is Polars' plan of the query, which says nothing to who wrote it.
        message = str(error).split("\n\nResolved plan")[0].strip()
        listed = "; ".join(f"{name}({_columns(frame)})" for name, frame in named.items())
        raise LaminaError(f"the query cannot be answered: {message}", hint=f"tables: {listed}") from error


def _columns(frame: pl.LazyFrame) -> str:
    names = frame.collect_schema().names()
    quoted = [name if name.isidentifier() else f'"{name}"' for name in names[:_LISTED]]
    return ", ".join(quoted + ([f"… {len(names) - _LISTED} more"] if len(names) > _LISTED else []))


def _json(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _json(item) for name, item in value.items()}
    return value
