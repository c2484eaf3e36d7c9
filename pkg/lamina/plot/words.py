"""What a chart says about itself: the measure's name and unit, and what all of its values have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from lamina.errors import SchemaError

if TYPE_CHECKING:
    from lamina.measures.registry import Measure


def named(frame: pl.DataFrame) -> str:
    """Return the name of the frame's only measure and part, or `value`."""
    parts = [_only(frame, "measure"), _only(frame, "part")]
    return " ".join(str(part) for part in parts if part not in (None, "value")) or str(_only(frame, "name") or "value")


def with_unit(frame: pl.DataFrame) -> str:
    """Return the measure's name with its unit, as an axis shows it.

    Raises:
        SchemaError: The frame has values of several units.
    """
    if "unit" not in frame.columns:
        return named(frame)
    units = frame["unit"].drop_nulls().unique(maintain_order=True).to_list()
    if len(units) > 1:
        raise SchemaError(f"values of several units: {', '.join(units)}", hint="filter the frame to one of them")
    return f"{named(frame)} ({'no unit' if units in ([], ['1']) else units[0]})"


def declared(frame: pl.DataFrame) -> Measure | None:
    """Return what the register knows of the frame's only measure; None if it has several or one that is not there."""
    from lamina.measures.registry import measures

    name = _only(frame, "measure")
    if name is None:
        return None
    found = [each for full, each in measures().items() if name in (full, full.partition(".")[2])]
    return found[0] if len(found) == 1 else None


def shared(frame: pl.DataFrame, *more: str, without: Sequence[str] = ()) -> str:
    """Return what all values have in common, then `more`, then how many rows they stand on and what was left out."""
    parts: list[str] = []
    for name in ("run", "site", "step", "name", "source", "estimator"):
        sides = [each for each in (name, f"{name}_a", f"{name}_b") if each in frame.columns]
        values = dict.fromkeys(value for each in sides if (value := _only(frame, each)) is not None)
        whole = all(frame[each].n_unique() == 1 for each in sides)
        if name not in without and values and whole:
            shown = ", ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in values)
            parts.append(f"{name} {shown}" if name in ("run", "step", "source") else shown)
    parts += [part for part in more if part]
    parts += [rows] if (rows := _rows(frame)) else []
    if lost := frame["value"].null_count():
        parts.append(f"{lost:,} without a value left out")
    return "; ".join(parts)


def _rows(frame: pl.DataFrame) -> str:
    """Return how many rows values stand on, and in how many groups."""
    frame = frame.filter(pl.col("value").is_not_null())
    counts = []
    for name, unit in (("n", "rows"), ("n_groups", "groups")):
        known = frame[name].drop_nulls() if name in frame.columns else pl.Series([], dtype=pl.Int64)
        if known.len():
            low, high = int(known.min()), int(known.max())  # pyright: ignore[reportArgumentType]
            counts.append(f"{low:,} {unit}" if low == high else f"{low:,} to {high:,} {unit}")
    return " in ".join(counts)


def _only(frame: pl.DataFrame, name: str) -> object:
    """Return the only value of a column; None if there is no such column, none, or several."""
    values = frame[name].unique().to_list() if name in frame.columns else []
    return values[0] if len(values) == 1 else None
