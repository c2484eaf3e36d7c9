"""An (n, d) matrix whose rows are samples, read in blocks from wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.rows import pool
from lamina.rows.batches import Batches
from lamina.rows.epochs import WINDOW_BYTES, OrderName, Plan

if TYPE_CHECKING:
    import torch

    from lamina.rows.dataset import BatchDataset

Reopen = Callable[[Any], tuple[Callable[..., "Rows"], tuple[Any, ...]]]
"""Says of a source how another process gets at its rows: a function and its arguments, as `__reduce__` does."""


class Source(Protocol):
    """What lies behind `Rows`."""

    shape: tuple[int, int]

    @property
    def ids(self) -> np.ndarray:
        """The names of the rows, int64."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the rows."""
        ...

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        ...

    def narrow(self, positions: np.ndarray | range) -> Source:
        """Some of the rows."""
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

    Made by `Run.rows(...)` from a stored site, or by `Rows.of(...)` from a tensor or array in memory. `rows[10:20]`,
    `rows[mask]` and `rows[positions]` are rows again, and read nothing either.

    Attributes:
        shape: (n, d).

    Example:
        >>> import torch
        >>> rows = Rows.of(torch.arange(6.0).reshape(3, 2))
        >>> rows.shape, [block.tolist() for block in rows.blocks(2)]
        ((3, 2), [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]])
        >>> rows[1:].gather([1]).tolist()
        [[4.0, 5.0]]
    """

    def __init__(self, source: Source, *, stored: str | None = None, reopen: Reopen | None = None) -> None:
        self._source = source
        self._reopen = reopen
        self._stored = stored
        self.shape = source.shape

    @staticmethod
    def of(value: Any) -> Rows:
        """Rows of a torch tensor or NumPy array [n, d] or [n]; more dimensions are flattened behind the first."""
        return value if isinstance(value, Rows) else Rows(_Memory(value))

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 names of the rows: permanent ones in a run, 0 to n - 1 in memory. Eight bytes a row, once asked for."""
        return self._source.ids

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
        """The path of the run that the rows lie in; None for rows in memory."""
        return self._stored

    @property
    def source(self) -> Source:
        """What lies behind the rows."""
        return self._source

    @property
    def preshuffled(self) -> bool:
        """Whether the rows lie in shuffled order, as `Run.preshuffle` writes them."""
        return getattr(self._source, "preshuffled", False)

    @property
    def width(self) -> int:
        """d, the numbers in a row."""
        return self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Rows(shape={self.shape}, dtype={str(self.dtype).removeprefix('torch.')})"

    def __reduce__(self) -> tuple[Callable[..., Rows], tuple[Any, ...]]:
        """Rows of a run pickle by path and by which rows they are; unpickling opens the run and evaluates nothing."""
        if self._reopen is not None:
            return self._reopen(self._source)
        return Rows.of, (self.gather(range(len(self))),)

    def __getitem__(self, index: Any) -> Rows:
        """Some of the rows.

        Args:
            index: A slice, a mask of n booleans, or positions in any order.

        Raises:
            IndexError: A position is outside of 0 to n - 1.
            SchemaError: A mask of another length, or positions that are no integers.
        """
        if isinstance(index, slice):
            chosen = range(*index.indices(len(self)))
            positions = chosen if chosen.step == 1 else np.arange(chosen.start, chosen.stop, chosen.step)
        elif (given := np.asarray(index)).dtype == np.bool_:
            if given.shape != (len(self),):
                raise SchemaError(f"a mask of {list(given.shape)} for {len(self)} rows", hint="give one boolean a row")
            positions = np.flatnonzero(given)
        elif given.ndim == 1:
            positions = self._positions(given)
        else:
            raise SchemaError(f"rows[{index!r}]", hint="give a slice, a mask or positions; gather([i]) reads a row")
        return Rows(self._source.narrow(positions), stored=self._stored, reopen=self._reopen)

    def gather(self, indices: Any, out: torch.Tensor | None = None, *, threads: int | None = None) -> torch.Tensor:
        """The rows at `indices` (positions in 0 to n - 1, in any order, also repeated), as a (k, d) tensor.

        A result of a MiB or more of stored rows that is not given as `out` comes in memory that an earlier one used,
        once nothing refers to that one any more. It is the caller's as long as the caller keeps
        it, or what shares its memory.

        Args:
            indices: Integers: a tensor, array, list, range or slice.
            out: A (k, d) tensor of the same dtype to fill instead of a new one.
            threads: How many threads copy; `torch.get_num_threads()` by default. Less than a MiB is left to one.

        Raises:
            IndexError: An index is outside of 0 to n - 1.
            SchemaError: `out` has another shape or dtype, or the indices are no integers.
            DamagedError: Bytes of the rows do not match their checksum.
        """
        positions = self._positions(indices)
        shape = (len(positions), self.shape[1])
        if out is None:
            import torch

            out = pool.empty(shape, self.dtype) if self._stored else torch.empty(shape, dtype=self.dtype)
        elif tuple(out.shape) != shape or out.dtype != self.dtype:
            raise SchemaError(f"out is {out.dtype} {list(out.shape)}, the rows are {self.dtype} {list(shape)}")
        if threads is not None and threads < 1:
            raise SchemaError(f"threads={threads}", hint="give at least 1")
        if len(positions):
            self._source.gather(positions, out, threads)
        return out

    def _positions(self, indices: Any) -> np.ndarray | range:
        """Checked positions; neighbors that are given as a slice or range stay a range."""
        if isinstance(indices, slice):
            indices = range(*indices.indices(len(self)))
        if isinstance(indices, range) and indices.step == 1:
            positions, least, greatest = indices, indices.start, indices.stop - 1
        else:
            given = np.asarray(indices)
            if given.size and given.dtype.kind not in "iu":
                raise SchemaError(
                    f"the indices are {given.dtype}", hint="give positions; numpy.flatnonzero makes them of a mask"
                )
            positions = given.astype(np.int64, copy=False).reshape(-1)
            least, greatest = (positions.min(), positions.max()) if positions.size else (0, -1)
        if len(positions) and (least < 0 or greatest >= len(self)):
            raise IndexError(f"an index is outside of 0 to {len(self) - 1}")
        return positions

    def blocks(self, size: int) -> Iterator[torch.Tensor]:
        """The rows in order, at most `size` at a time."""
        if size < 1:
            raise SchemaError(f"a block of {size} rows", hint="give at least 1")
        for start in range(0, len(self), size):
            yield self.gather(range(start, min(start + size, len(self))))

    def batches(
        self,
        size: int,
        *,
        seed: int | None = None,
        order: OrderName = "exact",
        window_bytes: int = WINDOW_BYTES,
        drop_last: bool = False,
    ) -> Batches:
        """Epochs of batches [size, d] in shuffled order, gathered ahead by a thread.

        Which row comes when follows from the seed and the number of the epoch, in constant memory. In "exact" order any
        row may come at any time: right where the rows are in the page cache, and slow from a disk. In "block" order
        runs of 256 KiB of neighbors come in shuffled order, and rows are shuffled among the runs of a window: few
        and large reads. `lamina.rows.mixing` measures how well that mixes. "preshuffled" is stored order, for rows
        that `Run.preshuffle` wrote: alike in every epoch.

        Args:
            size: Rows of a batch.
            seed: An integer; needed for "exact" and "block".
            order: The order.
            window_bytes: Bytes of rows among which "block" shuffles; they and as many again are held by the page cache.
            drop_last: Leave out a last batch that is not full.

        Raises:
            SchemaError: An option is impossible, or the rows are not preshuffled.

        Example:
            >>> import torch
            >>> batches = Rows.of(torch.arange(5.0)).batches(2, seed=0)
            >>> first = next(iter(batches))
            >>> state = batches.state_dict()
            >>> again = Rows.of(torch.arange(5.0)).batches(2, seed=0)
            >>> again.load_state_dict(state)
            >>> sorted(torch.cat([first, *again]).flatten().tolist())
            [0.0, 1.0, 2.0, 3.0, 4.0]
        """
        plan = Plan.of(self, size, seed=seed, order=order, window_bytes=window_bytes, drop_last=drop_last)
        return Batches(self, plan)

    def dataset(
        self,
        size: int,
        *,
        seed: int | None = None,
        order: OrderName = "exact",
        window_bytes: int = WINDOW_BYTES,
        drop_last: bool = False,
    ) -> BatchDataset:
        """The same batches for `torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=…)`.

        Args:
            size: As in `batches`.
            seed: As in `batches`.
            order: As in `batches`.
            window_bytes: As in `batches`.
            drop_last: As in `batches`.

        Raises:
            SchemaError: As in `batches`.
        """
        from lamina.rows.dataset import BatchDataset

        plan = Plan.of(self, size, seed=seed, order=order, window_bytes=window_bytes, drop_last=drop_last)
        return BatchDataset(self, plan)

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

    @property
    def ids(self) -> np.ndarray:
        return np.arange(self.shape[0], dtype=np.int64)

    @property
    def dtype(self) -> torch.dtype:
        return self._tensor.dtype

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        out.copy_(self._tensor[self._index(positions)])

    def narrow(self, positions: np.ndarray | range) -> _Memory:
        return _Memory(self._tensor[self._index(positions)])

    def _index(self, positions: np.ndarray | range) -> Any:
        import torch

        if isinstance(positions, range):
            return slice(positions.start, max(positions.start, positions.stop))
        return torch.tensor(positions, device=self._tensor.device)

    @property
    def columns(self) -> list[str]:
        return ["row"]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        if unknown := [name for name in columns if name != "row"]:
            raise SchemaError(f"rows in memory have no column {unknown[0]!r}", hint="they have row alone")
        return pl.DataFrame({"row": self.ids}).select(columns)
