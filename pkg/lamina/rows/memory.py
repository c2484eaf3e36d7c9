"""Rows that lie in memory, or in a file that is mapped into it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError

if TYPE_CHECKING:
    import torch


class Described:
    """What is known of rows that lie in memory.

    Args:
        metadata: A column of n values by name, or a frame of them.
        n: How many rows there are.

    Raises:
        SchemaError: A column has another length.
    """

    def __init__(self, metadata: pl.DataFrame | Mapping[str, Any] | None, n: int) -> None:
        self._metadata = _frame({} if metadata is None else metadata, n)
        self._n = n

    @property
    def ids(self) -> np.ndarray:
        """0 to n - 1, unless the metadata name them."""
        if "row" in self._metadata.columns:
            return self._metadata["row"].cast(pl.Int64).to_numpy()
        return np.arange(self._n, dtype=np.int64)

    @property
    def given(self) -> pl.DataFrame:
        """The metadata that were given."""
        return self._metadata

    @property
    def columns(self) -> list[str]:
        """`row`, and what was given."""
        return ["row", *(name for name in self._metadata.columns if name != "row")]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of all rows."""
        if unknown := [name for name in columns if name not in self.columns]:
            known = ", ".join(self.columns)
            hint = f"they have {known}; Rows.of(…, metadata=) gives them more"
            raise SchemaError(f"rows in memory have no column {unknown[0]!r}", hint=hint)
        own = pl.Series("row", self.ids)
        return pl.DataFrame([own if name == "row" else self._metadata[name] for name in columns])

    def described(self, positions: np.ndarray | range) -> pl.DataFrame:
        """The metadata of some of the rows."""
        if isinstance(positions, range):
            return self._metadata.slice(positions.start, len(positions))
        return self._metadata[positions] if self._metadata.width else self._metadata


class Memory(Described):
    """A source for `Rows`: a tensor or array, and a frame of what is known of its rows.

    Args:
        value: An (n, d) or (n,) tensor or array; more dimensions are flattened behind the first. A memory map is read
            where it lies, a block at a time.
        metadata: A column of n values by name, or a frame of them.

    Raises:
        SchemaError: It is no matrix, or a column has another length.
    """

    converts = True
    """`gather` fills tensors of any dtype and device."""

    def __init__(self, value: Any, metadata: pl.DataFrame | Mapping[str, Any] | None = None) -> None:
        tensor = tensor_of(value)
        if tensor.ndim == 0:
            raise SchemaError("rows need at least one dimension", hint="give an (n, d) tensor or array")
        if tensor.numel():
            self._tensor = tensor.reshape(tensor.shape[0], -1)
        else:
            self._tensor = tensor.reshape(tensor.shape[0], tensor.shape[-1])
        self.shape = (self._tensor.shape[0], self._tensor.shape[1])
        super().__init__(metadata, self.shape[0])

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's."""
        return self._tensor.dtype

    @property
    def tensor(self) -> torch.Tensor:
        """The matrix."""
        return self._tensor

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        out.copy_(self._tensor[self._index(positions)])

    def narrow(self, positions: np.ndarray | range) -> Memory:
        """Some of the rows; neighbors share the memory."""
        return Memory(self._tensor[self._index(positions)], self.described(positions))

    def _index(self, positions: np.ndarray | range) -> Any:
        import torch

        if isinstance(positions, range):
            return slice(positions.start, max(positions.start, positions.stop))
        return torch.tensor(positions, device=self._tensor.device)


_ROWS = "give an (n, d) tensor or array, or rows of a run: run.rows(site, step=…)"


def tensor_of(value: Any) -> torch.Tensor:
    """Return what was given as a tensor, with its memory; SchemaError if it is none."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError("no numbers")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        with warnings.catch_warnings():
            # a map that is opened for reading cannot be written to, and is not
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.as_tensor(array)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"rows of a {type(value).__name__}: {error}", hint=_ROWS) from None


def _frame(metadata: pl.DataFrame | Mapping[str, Any], n: int) -> pl.DataFrame:
    if isinstance(metadata, Mapping):
        columns = []
        for name, values in metadata.items():
            if hasattr(values, "detach"):
                values = values.detach().cpu().numpy()
            try:
                columns.append(pl.Series(name, values))
            except TypeError as error:
                raise SchemaError(f"metadata {name!r}: {error}", hint="give one value a row") from None
        if wrong := [column for column in columns if len(column) != n]:
            raise SchemaError(f"metadata {wrong[0].name!r} has {len(wrong[0])} values, there are {n} rows")
        metadata = pl.DataFrame(columns)
    if metadata.width and metadata.height != n:
        raise SchemaError(f"the metadata have {metadata.height} rows, the matrix has {n}")
    return metadata
