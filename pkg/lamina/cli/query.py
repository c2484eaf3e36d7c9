"""Polars SQL over what a run holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import date, datetime

import polars as pl

from lamina.cli.show import placeholders
from lamina.errors import LaminaError, SchemaError
from lamina.runs import Run, Runs

_ROWS = 100
"""Most rows of an answer printed as a table."""
_LISTED = 24
"""Most columns of a table named in an error."""


def tables(opened: Run | Runs, sql: str) -> dict[str, pl.LazyFrame]:
    """Return the tables that a query can name; several runs give each a column `run`."""
    named = {
        "metrics": opened.metrics(),
        "sites": opened.sites().lazy(),
        "examples": opened.examples(),
        "notes": opened.notes().lazy(),
        "attachments": opened.attachments().lazy(),
        "checkpoints": opened.checkpoints(),
    }
    try:
        named["activations"] = opened.activations()
    except SchemaError:
        # runs whose vectors do not go together have metrics all the same
        if "activations" in sql:
            raise
    return named


def answer(opened: Run | Runs, sql: str) -> pl.DataFrame:
    """Return the answer to a query.

    Raises:
        LaminaError: The SQL is wrong, or names a table or column that is not there; the hint lists those that are.
    """
    return _asked(opened, sql, pl.LazyFrame.collect)


def shown_answer(opened: Run | Runs, sql: str) -> tuple[pl.DataFrame, bool]:
    """Return the first 100 rows of an answer, with vectors as their shapes and unread, and whether there are more."""
    frame = _asked(opened, sql, _without_vectors)
    return frame.head(_ROWS), frame.height > _ROWS


def records(frame: pl.DataFrame) -> Iterator[str]:
    """Yield the lines of a JSON array with an object a row: dates in ISO form, NaN and infinity as null."""
    if frame.is_empty():
        yield "[]"
        return
    for k, row in enumerate(frame.iter_rows(named=True)):
        text = json.dumps({name: _json(value) for name, value in row.items()}, allow_nan=False, ensure_ascii=False)
        yield ("[" if k == 0 else " ") + text + ("]" if k == frame.height - 1 else ",")


def _asked(opened: Run | Runs, sql: str, collect: Callable[[pl.LazyFrame], pl.DataFrame]) -> pl.DataFrame:
    named = tables(opened, sql)
    try:
        return collect(pl.SQLContext(named).execute(sql))
    except pl.exceptions.PolarsError as error:
        # What follows is Polars' plan of the query, which says nothing to who wrote it.
        message = " ".join(re.split(r"\n\n(?:Resolved plan|This error occurred)", str(error))[0].split())
        listed = "; ".join(f"{name}({_columns(frame)})" for name, frame in named.items())
        raise LaminaError(f"the query cannot be answered: {message}", hint=f"tables: {listed}") from error


def _without_vectors(frame: pl.LazyFrame) -> pl.DataFrame:
    """Collect one row more than is shown."""
    frame = frame.head(_ROWS + 1)
    schema = frame.collect_schema()
    vectors = placeholders(schema)
    if not vectors or len(vectors) < len(schema):
        return frame.with_columns(vectors).collect()
    # Nothing but vectors: only their number is asked for, else Polars would read one of them to know it.
    count = frame.select(pl.len()).collect().item()
    return pl.DataFrame({"": range(count)}).with_columns(vectors).drop("")


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
