"""Arrow's arrays as NumPy's: vectors, and the entries of columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.interchange.tensors import BITS

TEXT = "text"
"""What stands for a dtype where a column has lists of texts."""


@dataclass(frozen=True)
class Vectors:
    """A field that becomes a site, or a column with an entry a position."""

    field: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    given: tuple[int, ...]


def plain(array: Any) -> Any:
    """Without an extension's type around it."""
    return array.storage if hasattr(array, "storage") else array


def vectors(array: Any, one: Vectors, path: Path, first: int) -> np.ndarray:
    """The vectors as [n, *shape]."""
    rows = len(array)
    within = 1
    for length in one.given:
        array = _flat(array, length, one, path, first, within)
        within *= length
    if array.null_count:
        raise SchemaError(f"there are nulls inside the vectors of {one.field!r}", str(path), hint="fill them first")
    values = array.to_numpy(zero_copy_only=False)
    if one.dtype in BITS:
        values = values.view(BITS[one.dtype])
    return values.reshape(rows, *one.shape)


def _flat(array: Any, length: int, one: Vectors, path: Path, first: int, within: int = 1) -> Any:
    """The entries of lists that are `length` long; of each row there are `within`."""
    import pyarrow as pa

    if array.null_count:
        raise SchemaError(f"there are nulls inside the vectors of {one.field!r}", str(path), hint="fill them first")
    if not pa.types.is_fixed_size_list(array.type):
        lengths = array.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths != length).any():
            at = int(np.argmax(lengths != length))
            raise SchemaError(
                f"the lists of {one.field!r} are ragged: {length} entries in the first row, {lengths[at]} in row "
                f"{first + at // within:,}",
                str(path),
                hint="pad them to one length, or leave them out: name the others in sites= and columns=",
            )
    return plain(array.flatten())


def entries(array: Any, one: Vectors, path: Path, first: int) -> Any:
    """Entries of a column, [B, T]: an array of numbers, or lists of texts."""
    if one.dtype != TEXT:
        return vectors(array, one, path, first)
    _flat(array, one.given[0], one, path, first)
    return array.to_pylist()


def values_of(array: Any, field: str, path: Path) -> Any:
    """Entries of a column, one a row; None if none has a value."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if array.null_count == len(array) and len(array):
        return None
    if pa.types.is_timestamp(array.type):
        return as_time(array, field, path)
    if array.null_count or not pa.types.is_primitive(array.type):
        return array.to_pylist()
    return array.to_numpy(zero_copy_only=False)


def as_time(array: Any, field: str, path: Path) -> Any:
    """Times as microseconds since the epoch, UTC."""
    series = pl.Series(field, pl.from_arrow(array))
    zone = getattr(series.dtype, "time_zone", None)
    series = series.dt.replace_time_zone("UTC") if zone is None else series.dt.convert_time_zone("UTC")
    return series.dt.cast_time_unit("us")
