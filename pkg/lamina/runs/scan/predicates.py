"""Taking a predicate apart, without translating it."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import polars as pl

from lamina import _core

# Polars 1.40 to 1.43 hand over a term that it cannot evaluate itself: a hint of which rows a `top_k` can do without.
_HINT = re.compile(r'col\(".*"\)\.dynamic_pred: [0-9a-f-]{36}\(\)', re.DOTALL)


Answer = TypeVar("Answer")

_UNKNOWN: Any = object()
_LONGEST = 1 << 16
"""Bytes that a remembered expression has at most."""
_FUNCTION = b"PLPY"
"""What stands in a serialized expression before a Python function, which may say something else the next time."""


def remembered(expression: pl.Expr | None) -> bytes | None:
    """A key for what is to be remembered of an expression; None where nothing may be."""
    if expression is None:
        return b""
    try:
        key = expression.meta.serialize()
    except Exception:  # a function that cannot be pickled: whatever it raises
        return None
    return key if len(key) <= _LONGEST and _FUNCTION not in key else None


class Memory(Generic[Answer]):
    """What was found out about expressions, for when it is asked again. Safe to use from several threads.

    Args:
        most: How many expressions are remembered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[bytes, Answer] = {}

    def of(self, expression: pl.Expr | None, find_out: Callable[[], Answer]) -> Answer:
        """What is known of an expression, or is found out now."""
        key = remembered(expression)
        if key is None:
            return find_out()
        answer: Any = self._known.get(key, _UNKNOWN)
        if answer is _UNKNOWN:
            answer = find_out()
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[key] = answer
        return answer


class Split(NamedTuple):
    """The terms of a predicate: those over metadata alone, and those that need a vector."""

    early: list[pl.Expr]
    late: list[pl.Expr]


def split(predicate: pl.Expr | None, metadata: Container[str]) -> Split:
    """Split a predicate by what its terms need. All of them together are the predicate."""
    terms = [] if predicate is None else [term for term in conjuncts(predicate) if not _HINT.fullmatch(str(term))]
    early = [all(name in metadata for name in term.meta.root_names()) for term in terms]
    return Split(
        [term for term, is_early in zip(terms, early, strict=True) if is_early],
        [term for term, is_early in zip(terms, early, strict=True) if not is_early],
    )


def conjuncts(predicate: pl.Expr) -> list[pl.Expr]:
    """The terms of a conjunction; the predicate itself where it is none.

    A split is accepted only if putting it together again gives an equal expression.
    """
    parts = predicate.meta.pop()
    if len(parts) == 2:
        for left, right in (parts[::-1], parts):
            if (left & right).meta.eq(predicate):
                return conjuncts(left) + conjuncts(right)
    return [predicate]


def names_in(terms: Sequence[pl.Expr]) -> set[str]:
    """The columns that the terms need."""
    return {name for term in terms for name in term.meta.root_names()}


def all_of(terms: Sequence[pl.Expr]) -> pl.Expr | None:
    """Whether a row satisfies all terms; None where there is none."""
    if not terms:
        return None
    return (terms[0] if len(terms) == 1 else pl.all_horizontal(terms)).alias("mask")


def passing(frame: pl.DataFrame, condition: pl.Expr) -> np.ndarray:
    """Which rows of the frame satisfy a condition: their positions, ascending."""
    mask = frame.select(condition).to_series()
    if mask.len() != frame.height:  # a constant
        mask = mask.new_from_index(0, frame.height)
    # not arg_true(): Polars would make a query of its own of it
    return np.frombuffer(_core.where_true(mask), dtype=np.int64)
