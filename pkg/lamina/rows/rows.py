"""An (n, d) matrix whose rows are samples, read in blocks from wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from lamina.errors import SchemaError

if TYPE_CHECKING:
    import torch


class Source(Protocol):
    """What lies behind `Rows`."""

    ids: np.ndarray
    shape: tuple[int, int]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the rows."""
        ...

    def gather(self, positions: np.ndarray, out: torch.Tensor) -> None:
        """Fills `out` with the rows at these positions."""
        ...

    @property
    def columns(self) -> list[str]:
        """The names of the metadata columns."""
        ...

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """Metadata of all rows."""
        ...


class Rows:
    """An (n, d) matrix; nothing is read before it is asked for, and then only what is asked for.

    Made by `Run.rows(...)` from a stored site, or by `Rows.of(...)` from a tensor or array in memory.

    Attributes:
        shape: (n, d).
        ids: int64 names of the rows: permanent ones in a run, 0 to n - 1 in memory.

    Example:
        >>> import torch
        >>> rows = Rows.of(torch.arange(6.0).reshape(3, 2))
        >>> rows.shape, [block.tolist() for block in rows.blocks(2)]
        ((3, 2), [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]])
    """

    def __init__(self, source: Source, *, reopen: tuple[Callable[..., Rows], tuple[Any, ...]] | None = None) -> None:
        self._source = source
        self._reopen = reopen
        self.shape = source.shape
        self.ids = source.ids

    @staticmethod
    def of(value: Any) -> Rows:
        """Rows of a torch tensor or NumPy array [n, d] or [n]; more dimensions are flattened behind the first."""
        return value if isinstance(value, Rows) else Rows(_Memory(value))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that blocks come in."""
        return self._source.dtype

    @property
    def columns(self) -> list[str]:
        """The names of the metadata columns."""
        return self._source.columns

    @property
    def stored(self) -> str | None:
        """Which run the rows lie in; None for rows in memory."""
        return self._reopen[1][0] if self._reopen else None

    @property
    def width(self) -> int:
        """d, the numbers in a row."""
        return self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows(shape={self.shape}, dtype={str(self.dtype).removeprefix('torch.')})"

    def __reduce__(self) -> tuple[Callable[..., Rows], tuple[Any, ...]]:
        """Rows of a run pickle by path and question; unpickling opens the run again."""
        return self._reopen or (Rows.of, (self.gather(range(len(self))),))

    def gather(self, indices: Any, out: torch.Tensor | None = None) -> torch.Tensor:
        """The rows at `indices` (positions in 0 to n - 1, in any order, also repeated), as a (k, d) tensor.

        Args:
            indices: Integers: a tensor, array, list, range or slice.
            out: A (k, d) tensor of the same dtype to fill instead of a new one.

        Raises:
            IndexError: An index is outside of 0 to n - 1.
            SchemaError: `out` has another shape or dtype, or the indices are no integers.
        """
        import torch

        if isinstance(indices, slice):
            indices = range(*indices.indices(len(self)))
        given = np.asarray(indices)
        if given.size and given.dtype.kind not in "iu":
            raise SchemaError(
                f"the indices are {given.dtype}", hint="give positions; numpy.flatnonzero makes them of a mask"
            )
        positions = given.astype(np.int64, copy=False).reshape(-1)
        if positions.size and (positions.min() < 0 or positions.max() >= len(self)):
            raise IndexError(f"an index is outside of 0 to {len(self) - 1}")
        shape = (positions.size, self.shape[1])
        if out is None:
            out = torch.empty(shape, dtype=self.dtype)
        elif tuple(out.shape) != shape or out.dtype != self.dtype:
            raise SchemaError(f"out is {out.dtype} {list(out.shape)}, the rows are {self.dtype} {list(shape)}")
        if positions.size:
            self._source.gather(positions, out)
        return out

    def blocks(self, size: int) -> Iterator[torch.Tensor]:
        """The rows in order, at most `size` at a time."""
        if size < 1:
            raise SchemaError(f"a block of {size} rows", hint="give at least 1")
        for start in range(0, len(self), size):
            yield self.gather(range(start, min(start + size, len(self))))

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """These metadata columns of all rows, in order."""
        return self._source.metadata([columns] if isinstance(columns, str) else list(columns))


class _Memory:
    def __init__(self, value: Any) -> None:
        import torch

        try:
            tensor = value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError) as error:
            raise SchemaError(
                f"rows of a {type(value).__name__}: {error}", hint="give an (n, d) tensor or array"
            ) from None
        if tensor.ndim == 0:
            raise SchemaError("rows need at least one dimension", hint="give an (n, d) tensor or array")
        self._tensor = (
            tensor.reshape(tensor.shape[0], -1) if tensor.numel() else tensor.reshape(tensor.shape[0], tensor.shape[-1])
        )
        self.shape = (self._tensor.shape[0], self._tensor.shape[1])
        self.ids = np.arange(self.shape[0], dtype=np.int64)

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    def gather(self, positions: np.ndarray, out: torch.Tensor) -> None:
        import torch

        out.copy_(self._tensor[torch.from_numpy(positions).to(self._tensor.device)])

    @property
    def columns(self) -> list[str]:
        return ["row"]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        if unknown := [name for name in columns if name != "row"]:
            raise SchemaError(f"rows in memory have no column {unknown[0]!r}", hint="they have row alone")
        return pl.DataFrame({"row": self.ids}).select(columns)
