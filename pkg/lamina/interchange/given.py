"""Metadata that the caller hands over beside a file that has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.interchange.tensors import NAMES


class _ArrayTensor:
    """An array in memory, or one that NumPy maps."""

    def __init__(self, values: np.ndarray, dtype: str) -> None:
        self._values = values
        self.dtype = dtype
        self.shape = values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._values[start:stop]


def given_columns(
    columns: Mapping[str, Any] | None, rows: int
) -> tuple[dict[str, _ArrayTensor], dict[str, list[Any]], dict[str, Any]]:
    """Columns of numbers, columns of anything else, and those that are alike in all rows.

    Raises:
        SchemaError: A column has another number of entries than there are rows.
    """
    arrays: dict[str, _ArrayTensor] = {}
    lists: dict[str, list[Any]] = {}
    alike: dict[str, Any] = {}
    for name, values in (columns or {}).items():
        if isinstance(values, str | int | float) or (not hasattr(values, "__len__")):
            alike[name] = values
            continue
        if len(values) != rows:
            raise SchemaError(f"the column {name!r} has {len(values):,} entries, there are {rows:,} rows")
        if isinstance(values, np.ndarray) and (dtype := NAMES.get(values.dtype.newbyteorder("="))):
            arrays[name] = _ArrayTensor(values, dtype)
        else:
            lists[name] = values.to_list() if isinstance(values, pl.Series) else list(values)
    return arrays, lists, alike
