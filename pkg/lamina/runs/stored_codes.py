"""Rows of stored sparse codes, of which some features come out as dense blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import NUMPY_DTYPES
from lamina.runs.stored import StoredRows
from lamina.runs.threads import available_threads

if TYPE_CHECKING:
    import torch

    from lamina.runs.scan import Features
    from lamina_kernels.sparse import Codes


def chosen(features: Any, width: int) -> np.ndarray:
    """The numbers of features that rows show: all of `width` for None.

    Raises:
        SchemaError: They are no features, or one stands there twice.
    """
    numbers = np.arange(width) if features is None else np.asarray(features)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise SchemaError(f"features={features!r}", hint="give the numbers of features")
    if (outside := numbers[(numbers < 0) | (numbers >= width)]).size:
        raise SchemaError(f"feature {outside[0]} of codes {width} wide", hint=f"they are 0 to {width - 1}")
    if np.unique(numbers).size < numbers.size:
        raise SchemaError("features occur twice", hint="each is a column")
    return numbers.astype(np.int64)


class StoredCodes(StoredRows):
    """A source for `lamina.rows.Rows`: selected rows of sparse codes.

    Args:
        features: Which features the rows show, in this order; as `chosen` returns them.
        units: The long frame of the site.
        made: What `StoredRows` takes.
        **options: Likewise.
    """

    def __init__(self, features: np.ndarray, units: Features, *made: Any, **options: Any) -> None:
        super().__init__(*made, **options)
        self.features = features
        self._units = units
        self.shape = (self.shape[0], features.size)

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions, in their order."""
        import torch

        as_it_lies = out.is_cpu and out.is_contiguous() and out.dtype == self.dtype
        block = out.detach().zero_() if as_it_lies else torch.zeros(out.shape, dtype=self.dtype)
        # NumPy does not know bf16
        data = (block if self._dtype in NUMPY_DTYPES else block.view(torch.uint8)).numpy().reshape(-1).view(np.uint8)
        at = np.asarray(positions, np.int64)
        self._rows.gather_codes(at.view(np.uint8), self.features.view(np.uint8), data, threads or available_threads())
        if not as_it_lies:
            out.copy_(block)

    def narrow(self, positions: np.ndarray | range) -> StoredCodes:
        """Some of the rows."""
        rows = self._narrowed(positions)
        made = (self._snapshot, rows, self._dtype, self.shape[1], self._frame, self._own)
        return StoredCodes(self.features, self._units, *made)

    def codes(self, positions: np.ndarray | range) -> Codes:
        """The rows at these positions as codes."""
        import torch

        from lamina_kernels.sparse import Codes

        names = np.frombuffer(self._narrowed(positions).ids(), dtype=np.int64)
        at, features, values = self._units.at(names, self.features)
        places = np.zeros(self._units.width, dtype=np.int32)
        places[self.features] = np.arange(self.features.size)
        ends = np.cumsum(np.bincount(at, minlength=names.size))
        parts = torch.from_numpy(values.copy()).to(self.dtype), torch.from_numpy(places[features])
        return Codes(*parts, self.shape[1], torch.from_numpy(np.append(0, ends)), check=False)

    def will_need(self, spans: Any) -> None:
        """Does nothing: where codes lie is not known before their row pointers are read."""
