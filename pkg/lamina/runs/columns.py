"""Metadata as the user gives it to columns as the store takes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.runs import times
from lamina.runs.buffers import is_tensor

if TYPE_CHECKING:
    from lamina._core import Column, ColumnType

RESERVED_ORDER = ("step", "example", "position", "call", "micro", "source", "rank")
"""Metadata columns with a fixed meaning, in the order in which frames show them."""

_COMPUTED = ("row", "mask", "feature", "value")
_KINDS: dict[type, ColumnType] = {bool: "bool", int: "int", float: "float", str: "str"}
_MEANT: dict[str, tuple[ColumnType, ...]] = {
    **dict.fromkeys(RESERVED_ORDER, ("int",)),
    "example": ("int", "str"),
    "source": ("str",),
}


_RANK = {name: index for index, name in enumerate(RESERVED_ORDER)}
_LEAST, _MOST = -(2**63), 2**63 - 1


def check_name(name: str) -> None:
    """Raises SchemaError if a user's column may not be called so."""
    if name in _COMPUTED:
        raise SchemaError(f"the column name {name!r} is reserved", hint=f"Lamina fills {', '.join(_COMPUTED)} itself")


def rank(name: str) -> int:
    """Where a column stands among the others: reserved ones first."""
    return _RANK.get(name, len(_RANK))


def constants(values: Mapping[str, Any]) -> list[Column] | None:
    """Columns for the store, in order, if each is one ordinary value for all rows; None if not, or if one is wrong."""
    result: list[Column] = []
    for name, value in values.items():
        kind = _KINDS.get(type(value))
        if kind is None or name in _COMPUTED or kind not in _MEANT.get(name, (kind,)):
            return None
        result.append((name, kind, value, None))
    if len(result) > 1:
        result.sort(key=lambda column: rank(column[0]))
    return result


def as_values(name: str, value: Any) -> Any:
    """A scalar as it is; a tensor, list or series as a one- or more-dimensional array (objects where None or text).

    Points in time become datetime64[us], scalars too.
    """
    # first what comes most often: between steps of a training the caches hold other things, and each further function
    # costs tens of microseconds
    kind = type(value)
    if kind in _KINDS or (kind is np.ndarray and value.ndim and value.dtype.kind in "biuf"):
        return value
    if kind is range:
        return from_range(value)
    if isinstance(value, datetime | np.datetime64):
        return times.from_items(name, [value])[0]
    if is_tensor(value):
        value = value.detach().cpu()
        # NumPy knows neither bf16 nor f8; all of their values are values of f32
        value = (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind == "M":
        return times.from_array(name, value)[()]
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, pl.Series):
        if isinstance(value.dtype, pl.Datetime):
            return times.from_series(name, value)
        value = value.to_list()
    if isinstance(value, list | tuple):
        return _from_list(name, list(value))
    return value


def from_range(value: range) -> np.ndarray:
    """The numbers of a range, without a Python object for each; nobody writes to them."""
    if _LEAST <= value.start <= _MOST and _LEAST <= value.stop <= _MOST and _LEAST <= value.step <= _MOST:
        return _few_numbers(value) if value[_FEW:] == range(0) else _numbers(value)
    return np.array(value, dtype=object)


def _numbers(value: range) -> np.ndarray:
    return np.arange(value.start, value.stop, value.step, dtype=np.int64)


_FEW = 2**16
_few_numbers = lru_cache(maxsize=8)(_numbers)  # they are mostly those of the append before


def _from_list(name: str, values: list[Any]) -> np.ndarray:
    nested = bool(values) and all(isinstance(value, list | tuple) for value in values)
    flat = [item for row in values for item in row] if nested else values
    shape = (len(values), len(values[0])) if nested else (len(values),)
    if nested and any(len(row) != len(values[0]) for row in values):
        raise SchemaError(f"column {name!r} is a list of lists of different lengths")
    if times.are_times(flat):
        return times.from_items(name, flat).reshape(shape)
    kinds = {type(item) for item in flat if item is not None}
    if kinds and kinds <= {int, float, bool} and None not in flat:
        try:
            return np.asarray(values, dtype=np.int64 if kinds == {int} else None)
        except OverflowError:
            pass  # the column's name belongs into the error: see _from_objects
    array = np.empty(len(flat), dtype=object)
    array[:] = [item.item() if isinstance(item, np.generic) else item for item in flat]
    return array.reshape(shape)


def column(name: str, values: Any) -> Column:
    """One column for the store from a scalar or an array that has one entry a row."""
    cells = _column(name, values)
    if name in _MEANT and cells[1] not in (meant := _MEANT[name]):
        raise SchemaError(f"column {name!r} is given as {cells[1]}", hint=f"it is reserved for {' or '.join(meant)}")
    return cells


def _column(name: str, values: Any) -> Column:
    check_name(name)
    if (kind := _KINDS.get(type(values))) is not None:
        return name, kind, values, None
    if values is None:
        raise SchemaError(
            f"column {name!r} is None", hint="leave it out, or give a list with None where there is no value"
        )
    if isinstance(values, np.datetime64):
        return name, "time", None if np.isnat(values) else int(values.astype(np.int64)), None
    if not isinstance(values, np.ndarray):
        raise SchemaError(
            f"column {name!r} is a {type(values).__name__}",
            hint="give integers, floats, booleans, texts or times, or a list of them",
        )
    if values.dtype == object and times.are_times(values.tolist()):
        values = times.from_items(name, values.tolist())
    if values.dtype == object or values.dtype.kind in "US":
        return _from_objects(name, values.tolist())
    match values.dtype.kind:
        case "i" | "u":
            if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
                raise SchemaError(f"column {name!r} has integers beyond 63 bits")
            return name, "int", _bytes(values, np.int64), None
        case "f":
            return name, "float", _bytes(values, np.float64), None
        case "b":
            return name, "bool", _bytes(values, np.uint8), None
        case "M":
            valid = ~np.isnat(values)
            filled = np.where(valid, values.astype(np.int64), 0)
            return name, "time", _bytes(filled, np.int64), None if valid.all() else valid.astype(np.uint8)
    raise SchemaError(
        f"column {name!r} has the dtype {values.dtype}", hint="give integers, floats, booleans, texts or times"
    )


def _bytes(values: np.ndarray, dtype: type) -> np.ndarray:
    return np.ascontiguousarray(values.astype(dtype, copy=False)).reshape(-1).view(np.uint8)


def _from_objects(name: str, values: list[Any]) -> Column:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        kinds = {float}
    if kinds and not kinds <= set(_KINDS):
        strange = sorted(kind.__name__ for kind in kinds - set(_KINDS))
        raise SchemaError(
            f"column {name!r} holds a {strange[0]}",
            hint="give integers, floats, booleans, texts or times, or a tensor of them",
        )
    if len(kinds) > 1:
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise SchemaError(f"column {name!r} mixes {shown}", hint="a column has one type; None stands for no value")
    if not kinds:
        raise SchemaError(f"column {name!r} has no value at all", hint="leave it out of this append")
    kind = _KINDS[kinds.pop()]
    if kind == "str":
        return name, kind, values, None
    valid = np.array([value is not None for value in values], dtype=np.uint8)
    dtype = {"int": np.int64, "float": np.float64, "bool": np.uint8}[kind]
    try:
        filled = np.array([0 if value is None else value for value in values], dtype=dtype)
    except OverflowError:
        raise SchemaError(f"column {name!r} has integers beyond 63 bits") from None
    return name, kind, filled.view(np.uint8), None if valid.all() else valid


def is_blank(values: Any) -> bool:
    """Whether there are no values, or None alone: that has no type, and absent reads as null."""
    if not isinstance(values, np.ndarray) or (values.size and values.dtype != object):
        return False
    return all(value is None for value in values.reshape(-1))


def columns(values: Mapping[str, Any], rows: int) -> list[Column]:
    """Columns of `rows` entries each; ragged ones raise SchemaError that names the column."""
    result = []
    for name, given in values.items():
        entries = as_values(name, given)
        if isinstance(entries, np.ndarray):
            if entries.shape != (rows,):
                raise SchemaError(f"column {name!r} has the shape {list(entries.shape)}, there are {rows} rows")
            if is_blank(entries):
                continue
        result.append(column(name, entries))
    return result
