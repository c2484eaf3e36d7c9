"""Rows of sparse codes, of which some features come out as dense blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.rows.memory import Described, tensor_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lamina.rows.rows import Rows
    from lamina_kernels.sparse import Codes


def is_sparse(value: Any) -> bool:
    """Whether it is a sparse matrix of scipy or a sparse tensor."""
    if hasattr(value, "tocsr"):
        return True
    return type(value).__module__.startswith("torch") and str(getattr(value, "layout", "")).startswith("torch.sparse")


class Sparse(Described):
    """A source for `Rows`: entries (feature, value) row after row.

    Args:
        starts: int64 [n], the first entry of each row.
        stops: int64 [n], the entry behind its last.
        indices: [entries], the feature of each; below 0 for none.
        values: [entries].
        features: Which features come out, in order.
        metadata: As for `Memory`.

    Raises:
        SchemaError: Features occur twice or are below 0, or a column has another length.
    """

    converts = True
    """`gather` fills tensors of any dtype and device."""

    def __init__(
        self,
        starts: Tensor,
        stops: Tensor,
        indices: Tensor,
        values: Tensor,
        features: np.ndarray,
        metadata: pl.DataFrame | Mapping[str, Any] | None,
    ) -> None:
        import torch

        super().__init__(metadata, len(starts))
        if np.unique(features).size < features.size or (features < 0).any():
            raise SchemaError("features occur twice, or are below 0", hint="each is a column, from 0 on")
        self._starts, self._stops, self._indices, self._values = starts, stops, indices, values
        self._features = features
        self.shape = (len(starts), features.size)
        # the place of each feature; the last stands for those that are beyond, or below 0
        places = torch.full((int(features.max(initial=-1)) + 2,), -1, device=values.device)
        places[torch.from_numpy(features).to(values.device)] = torch.arange(features.size, device=values.device)
        self._places = places

    @staticmethod
    def of(value: Any, features: Sequence[int] | None, metadata: pl.DataFrame | Mapping[str, Any] | None) -> Sparse:
        """Make them of a sparse matrix or tensor, or of a pair (values, indices); entries are not copied.

        Raises:
            SchemaError: It is no matrix, or there are no such features.
        """
        import torch

        if isinstance(value, tuple):
            starts, stops, indices, values, width = _of_pair(value)
        else:
            if isinstance(value, torch.Tensor):
                value = value.detach()
                crows, indices, values = _of_tensor(value)
            else:
                matrix = value.tocsr()
                crows, indices, values = (tensor_of(part) for part in (matrix.indptr, matrix.indices, matrix.data))
            starts, stops, width = crows[:-1].long(), crows[1:].long(), value.shape[1]
        chosen = np.arange(width or 0) if features is None else np.asarray(features)
        if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
            raise SchemaError(f"features={features!r}", hint="give the numbers of features")
        chosen = chosen.astype(np.int64)
        if width is not None and (beyond := chosen[chosen >= width]).size:
            raise SchemaError(f"feature {beyond[0]} of codes {width} wide", hint=f"they are 0 to {width - 1}")
        return Sparse(starts, stops, indices, values, chosen, metadata)

    @property
    def dtype(self) -> torch.dtype:
        """The values'."""
        return self._values.dtype

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        import torch

        rows, columns, values = self._entries(positions)
        dense = torch.zeros(len(positions), self.shape[1], dtype=self.dtype, device=values.device)
        dense.index_put_((rows, columns), values, accumulate=True)
        out.copy_(dense)

    def codes(self, positions: np.ndarray | range) -> Codes:
        """The rows at these positions as codes."""
        import torch

        from lamina_kernels.sparse import Codes

        rows, columns, values = self._entries(positions)
        ends = torch.bincount(rows, minlength=len(positions)).cumsum(0)
        return Codes(values, columns, self.shape[1], torch.cat([ends.new_zeros(1), ends]), check=False)

    def _entries(self, positions: np.ndarray | range) -> tuple[Tensor, Tensor, Tensor]:
        """The entries of rows, row after row: which row, column, value."""
        import torch

        device = self._values.device
        at = torch.as_tensor(np.asarray(positions, np.int64), device=device)
        starts, sizes = self._starts[at], self._stops[at] - self._starts[at]
        rows = torch.repeat_interleave(sizes)
        # counted on from where each row starts
        entries = torch.arange(len(rows), device=device) + (starts - sizes.cumsum(0) + sizes)[rows]
        indices = _widened(self._indices, entries)
        columns = self._places[indices.clamp(-1, len(self._places) - 1)]
        kept = columns >= 0
        return rows[kept], columns[kept], self._values[entries[kept]]

    def narrow(self, positions: np.ndarray | range) -> Sparse:
        """Some of the rows; they share the entries."""
        import torch

        at: Any = torch.as_tensor(np.asarray(positions, np.int64), device=self._starts.device)
        if isinstance(positions, range):
            at = slice(positions.start, max(positions.start, positions.stop))
        parts = (self._starts[at], self._stops[at], self._indices, self._values)
        return Sparse(*parts, self._features, self.described(positions))


def pickled(source: Any) -> tuple[Callable[..., Rows], tuple[Any, ...]]:
    """Say how another process gets at the rows: with all entries."""
    return _unpickled, (source,)


def _unpickled(source: Sparse) -> Rows:
    from lamina.rows.rows import Rows

    return Rows(source, reopen=pickled)


def _of_pair(value: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
    import torch

    shapes = [list(getattr(part, "shape", ())) for part in value]
    if len(value) != 2 or len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise SchemaError(f"codes of shapes {shapes}", hint="give (values, indices), both [n, k]")
    values, indices = (tensor_of(part) for part in value)
    if indices.is_floating_point() or indices.dtype == torch.bool:
        raise SchemaError(f"the indices are {indices.dtype}", hint="give (values, indices), in this order")
    if indices.device != values.device:
        indices = indices.to(values.device)
    n, k = values.shape
    starts = torch.arange(n, device=values.device) * k
    return starts, starts + k, indices.reshape(-1), values.reshape(-1), None


def _of_tensor(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    import torch

    if value.ndim != 2 or value.dense_dim() or value.layout not in (torch.sparse_coo, torch.sparse_csr):
        raise SchemaError(
            f"a tensor {list(value.shape)} of layout {value.layout}", hint="give a sparse matrix, CSR or COO"
        )
    if value.layout == torch.sparse_csr:
        return value.crow_indices(), value.col_indices(), value.values()
    value = value.coalesce()
    rows, columns = value.indices()
    sizes = torch.bincount(rows, minlength=value.shape[0])
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), columns, value.values()


def _widened(indices: Tensor, entries: Tensor) -> Tensor:
    """Return some indices as int64. Of unsigned ones torch selects none: their bits are taken for signed ones."""
    import torch

    signed = {torch.uint16: (torch.int16, 2**16), torch.uint32: (torch.int32, 2**32)}
    if indices.dtype not in signed:
        return indices[entries].long()
    dtype, limit = signed[indices.dtype]
    return indices.view(dtype)[entries].long() % limit
