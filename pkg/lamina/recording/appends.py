"""What was captured in a step, as calls of the writer: tensors that share their metadata columns together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import torch

from lamina.errors import RecordingError
from lamina.recording.captured import Captured
from lamina.recording.numbering import Numbering


def appends(
    captured: Iterable[Captured], columns: Mapping[str, Any], numbering: Numbering | None = None
) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    """Divide what a step captured into sets of tensors with the same columns.

    - A column is one value, or has an entry for each batch item, or is [batch, positions].
    - The model may be called several times in a step (micro-batches). A column as long as what one call
      gave holds for every call; a column as long as all calls together is divided among them in order.
    - A [batch, positions] column, a mask included, goes to tensors of three dimensions and is left out of
      the others, which have no positions.
    - If some site captured more than one tensor in the step, all rows of the step get a column `call`: 0 for
      the first tensor of their site, 1 for the second.

    Args:
        captured: What the step captured.
        columns: The user's columns by name, None left out.
        numbering: Where `example` comes from if it is not among the columns; None leaves it out.

    Yields:
        The tensors by site, and their columns.

    Raises:
        RecordingError: If a column fits neither a call nor all of them.
    """
    captured = list(captured)
    sizes = _batch_sizes(captured)
    ends = dict(zip(sizes, accumulate(sizes.values()), strict=True))
    total = sum(sizes.values())
    several = any(one.call > 0 for one in captured)
    if numbering is not None:
        numbering.begin_step()

    sets: dict[tuple[Any, ...], tuple[dict[str, torch.Tensor], dict[str, Any]]] = {}
    for one in captured:
        size, positions = one.value.shape[0], one.value.ndim == 3
        divided = size != total and size == sizes.get(one.batch) and any(_length(c) == total for c in columns.values())
        key = (one.call, size, positions, one.batch if divided or numbering is not None else None)
        if key not in sets:
            own: dict[str, Any] = {}
            for name, column in columns.items():
                if _length(column) is None:
                    own[name] = column
                elif positions or not _has_positions(column):
                    last = ends.get(one.batch, 0)
                    own[name] = _part(name, column, one, total, slice(last - size, last) if divided else None)
            if numbering is not None:
                own["example"] = numbering.of(one.batch, size)
            if several:
                own["call"] = one.call
            sets[key] = ({}, own)
        sets[key][0][one.site] = one.value
    yield from sets.values()


def _batch_sizes(captured: list[Captured]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for one in sorted(captured, key=lambda one: (one.batch, one.given)):
        sizes.setdefault(one.batch, one.value.shape[0])
    return sizes


def _part(name: str, column: Any, one: Captured, total: int, part: slice | None) -> Any:
    length, size = _length(column), one.value.shape[0]
    if length == size:
        return column
    if part is not None and length == total:
        return column[part]
    raise RecordingError(
        f"the column {name!r} has {length} entries, but the site {one.site!r} has shape {list(one.value.shape)}",
        hint="a column has one entry for each batch item, of one call of the model or of all calls of the step",
    )


def _length(column: Any) -> int | None:
    """Return the number of entries, None for a single value."""
    if column is None or isinstance(column, (str, bytes)) or getattr(column, "ndim", None) == 0:
        return None
    return len(column) if hasattr(column, "__len__") else None


def _has_positions(column: Any) -> bool:
    if hasattr(column, "ndim"):
        return column.ndim > 1
    return isinstance(column, (list, tuple)) and len(column) > 0 and _length(column[0]) is not None
