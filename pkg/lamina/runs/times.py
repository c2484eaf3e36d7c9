"""Points in time as the user gives them, to microseconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINE = ("us", "ns", "ps", "fs", "as")


def are_times(items: Sequence[Any]) -> bool:
    """Whether they are points in time, or None, and not None alone."""
    kinds = {type(item) for item in items if item is not None}
    return bool(kinds) and all(issubclass(kind, datetime | np.datetime64) for kind in kinds)


def from_items(name: str, items: Sequence[Any]) -> np.ndarray:
    """As datetime64[us], NaT where None."""
    return np.array([_instant(name, item) for item in items], dtype="datetime64[us]")


def from_array(name: str, values: np.ndarray) -> np.ndarray:
    """A datetime64 array of any unit, UTC by NumPy's convention, in microseconds; what is finer is cut off."""
    times = values.astype("datetime64[us]")
    unit = np.datetime_data(values.dtype)[0]
    if unit not in _FINE and not np.array_equal(times.astype(values.dtype), values, equal_nan=True):
        raise SchemaError(f"column {name!r} has times beyond what microseconds in 64 bits hold")
    return times


def from_series(name: str, series: pl.Series) -> np.ndarray:
    """A Polars series of Datetime with a time zone."""
    if getattr(series.dtype, "time_zone", None) is None:
        hint = 'say which it is: .dt.replace_time_zone("UTC")'
        raise SchemaError(f"column {name!r} holds times without a zone", hint=hint)
    naive = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.Datetime("us"))
    return np.asarray(naive.to_numpy(), dtype="datetime64[us]")


def _instant(name: str, item: Any) -> np.datetime64:
    if item is None:
        return np.datetime64("NaT", "us")
    if isinstance(item, np.datetime64):
        return from_array(name, np.array([item]))[0]
    if item.tzinfo is None:
        hint = "give it one, such as datetime.now(UTC) or .replace(tzinfo=UTC)"
        raise SchemaError(f"column {name!r} holds a time without a zone: {item}", hint=hint)
    return np.datetime64((item - _EPOCH) // timedelta(microseconds=1), "us")
