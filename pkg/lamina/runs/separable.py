"""Whether a predicate says of each row alone whether it passes."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
from polars.io.plugins import register_io_source

from lamina.runs.scan.predicates import conjuncts


def is_separable(predicate: pl.Expr, schema: pl.Schema) -> bool:
    """Whether the predicate may be evaluated on any part of the rows; `x > x.mean()` may not.

    Polars is asked: it hands a source only predicates of which it knows that.
    """
    return all(_is_handed_over(term, schema) for term in conjuncts(predicate))


def _is_handed_over(term: pl.Expr, schema: pl.Schema) -> bool:
    handed: list[pl.Expr | None] = []

    def source(
        _columns: list[str] | None, given: pl.Expr | None, _rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        handed.append(given)
        return iter(())

    register_io_source(source, schema=schema).filter(term).collect()
    return bool(handed) and all(given is not None for given in handed)
