"""Conditions on rows, as `where=` takes them."""

from __future__ import annotations

from typing import Any

import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.runs.nearest import nearest_names


def check_condition(where: Any, schema: pl.Schema) -> None:
    """Say what is wrong with a condition on rows that have these columns.

    Raises:
        NotFoundError: It names another column; the hint lists the nearest.
        SchemaError: It is no expression, or not true or false for each row.
    """
    if not isinstance(where, pl.Expr):
        raise SchemaError(f"where= is a {type(where).__name__}", hint='for example pl.col("example") < 100')
    if unknown := [name for name in where.meta.root_names() if name not in schema]:
        raise NotFoundError(f"no column {unknown[0]!r}", hint=nearest_names(unknown[0], schema.names()))
    types = pl.LazyFrame(schema=schema).select(where).collect_schema().dtypes()
    if wrong := [kind for kind in types if kind not in (pl.Boolean, pl.Null, pl.Unknown)]:
        raise SchemaError(f"where= gives {wrong[0]} for each row", hint="give a condition, which is true or false")
