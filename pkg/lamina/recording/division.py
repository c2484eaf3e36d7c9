"""How a step was divided into appends, kept for the steps that have the same shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.recording.appends import Append, appends
from lamina.recording.captured import Captured
from lamina.recording.kept import check_mask
from lamina.recording.numbering import Numbering
from lamina.runs.buffers import Lent


@dataclass(frozen=True)
class _Set:
    """One append: which of the step's columns it has as they are, and those that follow from shapes."""

    columns: tuple[str, ...]
    others: dict[str, Any]


class Division:
    """Divides what steps capture as `appends` does, and without looking at it again if nothing has changed but values.

    A training captures the same shapes in most of its steps. Where tensors go on as they were captured, and columns as
    they were given or as shapes alone say, the sets of a step are those of the one before, with other values.
    """

    def __init__(self) -> None:
        self._key: object = None
        self._sets: list[_Set] = []
        self._places: list[int] = []

    def of(
        self, captured: Sequence[Captured], columns: Mapping[str, Any], numbering: Numbering | None = None
    ) -> list[Append]:
        """Return the tensors by site and their columns; see `appends`.

        Raises:
            RecordingError: If a column fits neither a call nor all of them, or a mask is none.
        """
        key = None if numbering is not None else _shapes(captured, columns)
        if key is None or key != self._key:
            made = list(appends(captured, columns, numbering))
            self._key = key if key is not None and self._learn(captured, columns, made) else None
            return made
        if "mask" in columns:
            check_mask(columns["mask"])
        made = [({}, {name: columns[name] for name in one.columns} | one.others) for one in self._sets]
        for one, place in zip(captured, self._places, strict=True):
            made[place][0][one.site] = one.value if one.memory is None else Lent(one.value, one.memory)
        return made

    def _learn(self, captured: Sequence[Captured], columns: Mapping[str, Any], made: Sequence[Append]) -> bool:
        """Remember sets, unless more than shapes decided about them."""
        self._sets = []
        for _, own in made:
            given = tuple(name for name, column in own.items() if name in columns and column is columns[name])
            others = {name: column for name, column in own.items() if name not in given}
            if not columns.keys().isdisjoint(others) or not others.keys() <= {"position", "call"}:
                return False
            self._sets.append(_Set(given, others))
        places = {
            (site, id(value.tensor if isinstance(value, Lent) else value)): place
            for place, (sites, _) in enumerate(made)
            for site, value in sites.items()
        }
        found = [places.get((one.site, id(one.value))) for one in captured]
        self._places = [place for place in found if place is not None]
        return len(self._places) == len(found)


def _shapes(captured: Sequence[Captured], columns: Mapping[str, Any]) -> object:
    """Return what the sets depend on; None if on more than shapes."""
    # Of tokens a mask says how they are divided among examples.
    if any(one.form == "tokens" for one in captured):
        return None
    tensors = [(one.site, one.form, one.value.shape, one.call, one.batch, one.start, one.length) for one in captured]
    shapes = [(name, _shape(column)) for name, column in columns.items()]
    return None if any(shape is None for _, shape in shapes) else (tensors, shapes)


def _shape(column: Any) -> object:
    """Return the shape of a column, () for a single value; None if it may not have one."""
    if isinstance(column, (list, tuple)):
        # A list of lists has positions.
        nested = any(hasattr(one, "__len__") and not isinstance(one, str) for one in column)
        return None if nested else (len(column),)
    if isinstance(column, (str, bytes)):
        return ()
    if hasattr(column, "shape"):
        return tuple(column.shape)
    return (len(column),) if hasattr(column, "__len__") else ()
