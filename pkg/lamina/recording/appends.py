"""What was captured in a step, as calls of the writer: tensors that share their metadata columns together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch

from lamina.errors import RecordingError
from lamina.recording.captured import Captured
from lamina.recording.kept import check_mask, examples, kept_columns, kept_value
from lamina.recording.numbering import Numbering
from lamina.recording.sites import Site
from lamina.runs.buffers import Lent

Append = tuple[dict[str, torch.Tensor | Lent], dict[str, Any]]
"""Tensors by site, and the columns that they share."""


def appends(
    captured: Iterable[Captured], columns: Mapping[str, Any], numbering: Numbering | None = None
) -> Iterator[Append]:
    """Divide what a step captured into sets of tensors with the same columns.

    - A column is one value, or has an entry for each batch item, or is [batch, positions].
    - The model may be called several times in a step (micro-batches). A column as long as what one call
      gave holds for every call; a column as long as all calls together is divided among them in order.
    - A [batch, positions] column, a mask included, goes to tensors that have as many positions and is left out of
      the others.
    - If some site captured more than one tensor in the step, all rows of the step get a column `call`: 0 for
      the first tensor of their site, 1 for the second.

    Args:
        captured: What the step captured.
        columns: The user's columns by name, None left out.
        numbering: Where `example` comes from if it is not among the columns; None leaves it out.

    Yields:
        The tensors by site, lent ones where the writer may keep their memory, and their columns.

    Raises:
        RecordingError: If a column fits neither a call nor all of them, or a mask is none.
    """
    captured = list(captured)
    if columns.get("mask") is not None:
        check_mask(columns["mask"])
    sizes = _batch_sizes(captured, columns)
    ends = dict(zip(sizes, accumulate(sizes.values()), strict=True))
    total = sum(sizes.values())
    lengths = {one.length for one in captured}
    several = any(one.call > 0 for one in captured if one.form != "units")
    if numbering is not None:
        numbering.begin_step()

    sets: dict[tuple[Any, ...], Append] = {}
    given: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in captured:
        size = examples(one, columns)
        divided = size != total and size == sizes.get(one.batch) and any(_length(c) == total for c in columns.values())
        lead = one.value.shape[: 2 if one.form == "positions" else 1]
        part = one.batch if divided or numbering is not None else None
        key = (one.call, size, part, one.form, lead, one.start, one.length, _chooses(one.options))
        if key not in sets:
            last = ends.get(one.batch, 0)
            fitting = {name: column for name, column in columns.items() if _meant(one, column, lengths)}
            own = _columns(one, fitting, size, total, slice(last - size, last) if divided else None)
            if numbering is not None and one.form != "units":
                own["example"] = numbering.of(one.batch, size)
            given[key] = own
            sets[key] = ({}, kept_columns(one, own) | ({"call": one.call} if several or one.call else {}))
        value = kept_value(one, given[key])
        if one.memory is not None and value is one.value:
            value = Lent(value, one.memory)
        sets[key][0][one.site] = value
    yield from sets.values()


def _columns(one: Captured, columns: Mapping[str, Any], size: int, total: int, part: slice | None) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for name, column in columns.items():
        length = _length(column)
        if length is None:
            own[name] = column
        elif one.form == "units" or (one.form == "examples" and one.length == 0 and _has_positions(column)):
            continue
        elif length == size or (one.form == "tokens" and length == one.value.shape[0]):
            own[name] = column
        elif part is not None and length == total:
            own[name] = column[part]
        else:
            raise RecordingError(
                f"the column {name!r} has {length} entries, but the site {one.site!r} has shape "
                f"{list(one.value.shape)}",
                hint="a column has one entry for each batch item, of one call of the model or of all calls of the step",
            )
    return own


def _meant(one: Captured, column: Any, lengths: set[int]) -> bool:
    """Tell whether a column is this tensor's: [batch, positions] of another sequence's length is not."""
    if one.form != "positions" or not _has_positions(column):
        return True
    length = _length(column[0])
    return length == one.length or length not in lengths


def _batch_sizes(captured: list[Captured], columns: Mapping[str, Any]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for one in sorted(captured, key=lambda one: (one.batch, one.given, one.form == "tokens")):
        if one.form != "units":
            sizes.setdefault(one.batch, examples(one, columns))
    return sizes


def _chooses(options: Site) -> tuple[object, ...]:
    return repr(options.positions), options.pool, options.sample, options.seed


def _length(column: Any) -> int | None:
    """Return the number of entries, None for a single value."""
    if column is None or isinstance(column, (str, bytes)) or getattr(column, "ndim", None) == 0:
        return None
    return len(column) if hasattr(column, "__len__") else None


def _has_positions(column: Any) -> bool:
    if hasattr(column, "ndim"):
        return column.ndim > 1
    return isinstance(column, (list, tuple)) and len(column) > 0 and _length(column[0]) is not None
