"""Rows of stored sparse codes, of which some features come out as dense blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import NUMPY_DTYPES, is_tensor
from lamina.runs.stored import StoredRows
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    import torch

    from lamina.runs.chosen_units import ChosenUnits
    from lamina.runs.scan.indexed import Runs
    from lamina_kernels.sparse import Codes

Units = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of each unit which of the rows, which of the features, and the bits of its value; row after row."""


def chosen(features: Any, width: int) -> np.ndarray | None:
    """The numbers of features that rows show, as int64; None for all of `width`.

    Raises:
        SchemaError: They are no features, or one stands there twice.
    """
    if features is None:
        return None
    found = numbers("features=", features, width, "give the numbers of features, such as [17, 3]")
    known, times = np.unique(found, return_counts=True)
    if (twice := known[times > 1]).size:
        raise SchemaError(f"features= names {twice[0]} twice", hint="each is a column")
    return found


def numbers(what: str, given: Any, width: int, hint: str, *, columns: int | None = None) -> np.ndarray:
    """Numbers of features as int64: a vector, or a matrix of so many columns.

    Raises:
        SchemaError: They are no integers, of another shape, or none of `width` features.
    """
    try:
        found = np.asarray(given.cpu() if is_tensor(given) else given)
    except ValueError:
        raise SchemaError(f"{what} is ragged", hint=hint) from None
    shape = () if columns is None else (columns,)
    if found.ndim and not found.size:
        return np.empty((0, *shape), np.int64)
    if not found.ndim or found.shape[1:] != shape or found.dtype.kind not in "iu":
        kind = f"a {type(given).__name__} of shape {list(found.shape)}, {found.dtype}"
        raise SchemaError(f"{what} is {kind}", hint=hint)
    if (outside := found[(found < 0) | (found >= width)]).size:
        raise SchemaError(f"feature {outside[0]} of codes {width} wide", hint=f"they are 0 to {width - 1}")
    return found.astype(np.int64)


class StoredCodes(StoredRows):
    """A source for `lamina.rows.Rows`: selected rows of sparse codes.

    Args:
        units: The units of the features that the rows show.
        made: What `StoredRows` takes.
        **options: Likewise.
    """

    checks = False
    """Positions are checked before they come here."""

    def __init__(self, units: ChosenUnits, *made: Any, **options: Any) -> None:
        super().__init__(*made, **options)
        self._units = units
        self._places: Runs | None = None
        self._asked = 0
        self.shape = (self.shape[0], units.width)

    @property
    def features(self) -> np.ndarray | None:
        """Which features the rows show, in this order; None for all."""
        return self._units.features

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions, in their order."""
        import torch

        as_it_lies = out.is_cpu and out.is_contiguous() and out.dtype == self.dtype
        block = out.detach().zero_() if as_it_lies else torch.zeros(out.shape, dtype=self.dtype)
        # NumPy does not know bf16
        data = (block if self._dtype in NUMPY_DTYPES else block.view(torch.uint8)).numpy().reshape(-1).view(np.uint8)
        if (found := self._found(positions)) is not None:
            at, columns, bits = found
            data.view(bits.dtype).reshape(out.shape)[at, columns] = bits
        else:
            at = np.asarray(positions, np.int64).view(np.uint8)
            chosen = None if self.features is None else self.features.view(np.uint8)
            self._rows.gather_codes(at, chosen, data, threads or available_threads())
        if not as_it_lies:
            out.copy_(block)

    def narrow(self, positions: np.ndarray | range) -> StoredCodes:
        """Some of the rows."""
        rows = self._narrowed(positions)
        return StoredCodes(self._units, self._snapshot, rows, self._dtype, self.shape[1], self._frame, self._own)

    def codes(self, positions: np.ndarray | range) -> Codes:
        """The rows at these positions as codes."""
        import torch

        from lamina_kernels.sparse import Codes

        found = self._found(positions)
        at, columns, bits = self._scanned(positions) if found is None else found
        ends = np.cumsum(np.bincount(at, minlength=len(positions)))
        parts = torch.from_numpy(bits.copy()).view(self.dtype), torch.from_numpy(columns)
        return Codes(*parts, self.shape[1], torch.from_numpy(np.append(0, ends)), check=False)

    def _found(self, positions: np.ndarray | range) -> Units | None:
        """The units of rows, where those of all rows are kept."""
        if (kept := self._units.kept(len(positions))) is None:
            return None
        # to number all rows takes as long as to look the names of as many up
        self._asked += len(positions)
        if self._places is None and self._asked > self.shape[0]:
            self._places = kept.rows.numbered(self.ids)
        at, units = kept.rows.find(self._names(positions)) if self._places is None else self._places.find(positions)
        return at, kept.columns[units], kept.bits[units]

    def _scanned(self, positions: np.ndarray | range) -> Units:
        return self._units.scanned(self._names(positions))

    def _names(self, positions: np.ndarray | range) -> np.ndarray:
        return np.frombuffer(self._narrowed(positions).ids(), dtype=np.int64)

    def will_need(self, spans: Any) -> None:
        """Does nothing: where codes lie is not known before their row pointers are read."""
