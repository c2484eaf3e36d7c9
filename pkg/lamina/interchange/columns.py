"""A metadata column as tensors: values and which of them there are, or texts as offsets and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import DamagedError
from lamina.interchange.tensors import Tensor


@dataclass(frozen=True)
class StoredColumn:
    """A column that is read some rows at a time, like a tensor.

    Attributes:
        name: Its name, for errors.
        path: The file, for errors.
        values: The numbers; None for texts.
        valid: Which rows have a value; None if all have.
        offsets: Where each text begins, and the last ends.
        bytes: The texts' UTF-8.
        time: Whether the numbers are microseconds since the epoch, UTC.
    """

    name: str
    path: Path
    values: Tensor | None = None
    valid: Tensor | None = None
    offsets: Tensor | None = None
    bytes: Tensor | None = None
    time: bool = False

    def __len__(self) -> int:
        if self.values is not None:
            return self.values.shape[0]
        return 0 if self.offsets is None else max(0, self.offsets.shape[0] - 1)

    def __getitem__(self, part: slice) -> Any:
        """The entries of these rows: an array, or a list with None where there is no value."""
        start, stop, _ = part.indices(len(self))
        valid = None if self.valid is None else self.valid.read(start, stop).astype(bool)
        if self.values is None:
            entries: Any = self._texts(start, stop)
        else:
            entries = self.values.read(start, stop)
            entries = entries.astype(bool) if entries.dtype == np.uint8 else entries
            entries = entries.view("<M8[us]") if self.time else entries
        if valid is None or valid.all():
            return entries
        if self.time:
            # what is read may lie in memory that nobody may write
            return np.where(valid, entries, np.datetime64("NaT", "us"))
        entries = entries if isinstance(entries, list) else entries.tolist()
        return [value if there else None for value, there in zip(entries, valid.tolist(), strict=True)]

    def _texts(self, start: int, stop: int) -> list[str]:
        if self.offsets is None or self.bytes is None:
            raise DamagedError(f"the column {self.name!r} lacks its offsets or its bytes", str(self.path))
        at = self.offsets.read(start, stop + 1).astype(np.int64)
        if at.size and (at[0] < 0 or (np.diff(at) < 0).any() or at[-1] > self.bytes.shape[0]):
            raise DamagedError(f"the offsets of the column {self.name!r} do not grow", str(self.path))
        data = self.bytes.read(int(at[0]), int(at[-1])).tobytes() if at.size else b""
        at -= at[0] if at.size else 0
        try:
            return [data[a:b].decode() for a, b in zip(at.tolist(), at[1:].tolist(), strict=False)]
        except UnicodeDecodeError as error:
            raise DamagedError(f"a text of the column {self.name!r} is no UTF-8", str(self.path)) from error


def as_tensors(name: str, values: pl.Series) -> dict[str, np.ndarray]:
    """A column as arrays, by the name of the tensor: what `StoredColumn` reads."""
    arrays: dict[str, np.ndarray] = {}
    if values.dtype == pl.String:
        texts = values.fill_null("")
        ends = texts.str.len_bytes().cast(pl.Int64).cum_sum().to_numpy()
        arrays[f"{name}/.offsets"] = np.concatenate([np.zeros(1, np.int64), ends])
        arrays[f"{name}/.bytes"] = np.frombuffer((texts.str.join("").item() or "").encode(), np.uint8)
    else:
        plain = values.cast(pl.Int64) if values.dtype.is_temporal() else values
        empty = {pl.Boolean: False, pl.Float64: 0.0}.get(plain.dtype.base_type(), 0)
        arrays[name] = plain.fill_null(empty).to_numpy().copy()
    if values.null_count():
        arrays[f"{name}/.valid"] = values.is_not_null().to_numpy().copy()
    return arrays


def column_types(frame: pl.DataFrame) -> dict[str, str]:
    """The type of every column: int, float, bool, str or time."""
    names = {pl.Float64: "float", pl.Boolean: "bool", pl.String: "str", pl.Datetime: "time"}
    return {name: names.get(dtype.base_type(), "int") for name, dtype in frame.schema.items()}
