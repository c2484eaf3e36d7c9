"""An (n, d) matrix whose rows are samples, read in blocks from wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import SchemaError
from lamina.rows import choosing, pool
from lamina.rows.batches import Batches
from lamina.rows.converted import Converted
from lamina.rows.epochs import WINDOW_BYTES, OrderName, Plan
from lamina.rows.groups import labels_of
from lamina.rows.memory import Memory
from lamina.rows.positions import checked, chosen
from lamina.rows.sparse import Sparse, is_sparse, pickled

if TYPE_CHECKING:
    import torch

    from lamina.rows.dataset import BatchDataset
    from lamina.rows.source import Source
    from lamina_kernels.sparse import Codes

Reopen = Callable[[Any], tuple[Callable[..., "Rows"], tuple[Any, ...]]]
"""Says of a source how another process gets at its rows: a function and its arguments, as `__reduce__` does."""


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
        self._checks = getattr(source, "checks", False)
        self.shape = source.shape

    @staticmethod
    def of(
        value: Any,
        metadata: pl.DataFrame | Mapping[str, Any] | None = None,
        *,
        features: Sequence[int] | None = None,
    ) -> Rows:
        """Rows of a torch tensor, NumPy array or memory map [n, d] or [n]; Rows are returned as they are.

        Sparse codes come out as dense blocks of the features that are chosen, and are never dense as a whole: a matrix
        of scipy, a sparse tensor (CSR or COO), or with `features=` a pair (values, indices) of two [n, k], as `topk`
        returns it, whose indices below 0 stand for nothing. What a row has twice of a feature is added.

        Args:
            value: The matrix; more dimensions are flattened behind the first.
            metadata: Columns of n values, by name or as a frame. `example` names what is independent, as in a run.
            features: Of sparse codes: which features, in this order. None takes all of them.

        Raises:
            SchemaError: It is no matrix, a column has another length, or `features` do not fit.

        Example:
            >>> import torch
            >>> values, indices = torch.tensor([[3.0, 1.0], [2.0, 5.0]]), torch.tensor([[70, 8], [8, 901]])
            >>> Rows.of((values, indices), features=[8, 901]).gather([0, 1]).tolist()
            [[1.0, 0.0], [2.0, 5.0]]
        """
        if isinstance(value, Rows):
            if metadata is not None or features is not None:
                name = "metadata" if features is None else "features"
                raise SchemaError(f"{name}= for Rows, which have their own", hint="give groups= or labels= instead")
            return value
        if is_sparse(value) or (features is not None and isinstance(value, tuple)):
            return Rows(Sparse.of(value, features, metadata), reopen=pickled)
        if features is not None:
            raise SchemaError("features= for a matrix that is not sparse", hint="give x[:, features]")
        return Rows(Memory(value, metadata))

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 names of the rows: permanent ones in a run, 0 to n - 1 in memory. Eight bytes a row, once asked for."""
        return self._source.ids

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that blocks come in."""
        return self._source.dtype

    @property
    def device(self) -> torch.device:
        """The device that blocks come on: the CPU, unless `to` chose another."""
        import torch

        return getattr(self._source, "device", torch.device("cpu"))

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
        if isinstance(source := self._source, Converted):
            inner = Rows(source.inner, stored=self._stored, reopen=self._reopen)
            return Rows.to, (inner, source.device, source.dtype)
        if self._reopen is not None:
            return self._reopen(source)
        given = source.given if isinstance(source, Memory) and source.given.width else None
        return Rows.of, (self.gather(range(len(self))), given)

    def __getitem__(self, index: Any) -> Rows:
        """Some of the rows.

        Args:
            index: A slice, a mask of n booleans, or positions in any order.

        Raises:
            IndexError: A position is outside of 0 to n - 1.
            SchemaError: A mask of another length, or positions that are no integers.
        """
        positions = chosen(index, len(self), self._checks)
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
            SchemaError: `out` has another shape or dtype, or the indices are no integers or have several dimensions.
            DamagedError: Bytes of the rows do not match their checksum.
        """
        positions = checked(indices, len(self), self._checks)
        shape = (len(positions), self.shape[1])
        if out is None:
            import torch

            pooled = self._stored and self.device.type == "cpu"
            out = pool.empty(shape, self.dtype) if pooled else torch.empty(shape, dtype=self.dtype, device=self.device)
        elif tuple(out.shape) != shape or out.dtype != self.dtype:
            raise SchemaError(f"out is {out.dtype} {list(out.shape)}, the rows are {self.dtype} {list(shape)}")
        if threads is not None and threads < 1:
            raise SchemaError(f"threads={threads}", hint="give at least 1")
        if len(positions):
            self._source.gather(positions, out, threads)
        return out

    def blocks(self, size: int) -> Iterator[torch.Tensor]:
        """The rows in order, at most `size` at a time."""
        for positions in self._spans(size):
            yield self.gather(positions)

    def codes(self, size: int) -> Iterator[Codes]:
        """Rows of sparse codes in order as codes of `lamina_kernels`, at most `size` rows at a time, never dense.

        Args:
            size: Rows of a block.

        Raises:
            SchemaError: The rows are dense, or `size` is below 1.

        Example:
            >>> import torch
            >>> values, indices = torch.tensor([[3.0, 1.0], [2.0, 5.0]]), torch.tensor([[70, 8], [8, 901]])
            >>> (block,) = Rows.of((values, indices), features=[8, 901]).codes(1000)
            >>> block.indptr.tolist(), block.ids.tolist(), block.values.tolist()
            ([0, 1, 3], [0, 0, 1], [1.0, 2.0, 5.0])
        """
        source = self._source.inner if isinstance(self._source, Converted) else self._source
        read: Any = getattr(source, "codes", None)
        if read is None:
            raise SchemaError("the rows are dense", hint="rows.blocks(size) gives them")
        for positions in self._spans(size):
            yield read(positions).to(device=self.device, dtype=self.dtype)

    def _spans(self, size: int) -> Iterator[range]:
        if size < 1:
            raise SchemaError(f"a block of {size} rows", hint="give at least 1")
        for start in range(0, len(self), size):
            yield range(start, min(start + size, len(self)))

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

    def labels(self, given: Any) -> pl.Series:
        """One label a row, none of them missing.

        Args:
            given: The name of a column, of the rows or of the run's examples; or an array, list, series or tensor.

        Raises:
            NotFoundError: There is no such column.
            SchemaError: Not one label a row, or a label is missing.

        Example:
            >>> import torch
            >>> rows = Rows.of(torch.zeros(3, 2), {"digit": [7, 1, 7]})
            >>> rows.labels("digit").to_list()
            [7, 1, 7]
        """
        series = self.metadata([given])[given] if isinstance(given, str) else labels_of(given, len(self), "labels")
        series = series if isinstance(given, str) else series.alias("label")
        if missing := series.null_count():
            raise SchemaError(
                f"{missing} of {len(series)} rows have no {series.name or 'label'}",
                hint="leave them out with where=, or give labels for all",
            )
        return series

    def where(self, condition: pl.Expr) -> Rows:
        """The rows whose metadata satisfy a Polars expression; of stored rows `Run.rows(…, where=)` reads less.

        Args:
            condition: An expression over `columns` that is true or false for each row.

        Raises:
            SchemaError: It is no condition.
            NotFoundError: It names a column that the rows do not have.
        """
        names = condition.meta.root_names() if isinstance(condition, pl.Expr) else []
        if not names:
            raise SchemaError(f"where({condition})", hint='for example rows.where(pl.col("position") > 0)')
        found = self.metadata(list(dict.fromkeys(names))).select(condition.alias("kept"))["kept"]
        if found.dtype != pl.Boolean or len(found) != len(self):
            raise SchemaError(f"where() gives {len(found)} values of {found.dtype}", hint="give a condition")
        return self[found.fill_null(False).to_numpy()]

    def split(self, fraction: float, *, seed: int, groups: Any = None) -> tuple[Rows, Rows]:
        """Two parts that share no group, in stored order; nothing is read.

        On which side a group falls follows from its label and the seed alone: it is the same at every step, site and
        run. So the first part has about, not exactly, this fraction of the groups.

        Args:
            fraction: The part of the groups that the first is expected to get, between 0 and 1.
            seed: An integer; another one makes another split.
            groups: The name of a column, or a label for each row; None takes `example` where there is one, else each
                row by itself.

        Raises:
            SchemaError: The fraction is impossible, or all groups fall on one side.

        Example:
            >>> import torch
            >>> rows = Rows.of(torch.arange(100.0), {"example": [row // 10 for row in range(100)]})
            >>> train, held_out = rows.split(0.8, seed=0)
            >>> len(train) + len(held_out), set(train.labels("example")) & set(held_out.labels("example"))
            (100, set())
        """
        first, second = choosing.split(self, fraction, seed, groups)
        return self[first], self[second]

    def sample(self, n: int, *, seed: int, groups: Any = None) -> Rows:
        """As many whole groups as n rows have room for, in stored order; nothing is read.

        Groups come in an order that follows from their labels and the seed alone: the same ones at every step, site
        and run, and a larger sample holds a smaller one. Where every row is a group, it has exactly n rows.

        Args:
            n: The most rows; all are taken if there are no more.
            seed: An integer.
            groups: As in `split`.

        Raises:
            SchemaError: There is no room for a group.

        Example:
            >>> import torch
            >>> rows = Rows.of(torch.arange(100.0), {"example": [row // 10 for row in range(100)]})
            >>> len(rows.sample(35, seed=0)), len(rows.sample(35, seed=0, groups="row"))
            (30, 35)
        """
        return self[choosing.sample(self, n, seed, groups)]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Rows:
        """The same rows, on another device or in another dtype as they are read.

        Args:
            device: Where blocks come; None leaves them where they came.
            dtype: What blocks come in; None leaves it.

        Example:
            >>> import torch
            >>> Rows.of(torch.ones(2, 3)).to(dtype=torch.float64).gather([0]).dtype
            torch.float64
        """
        import torch

        source = self._source.inner if isinstance(self._source, Converted) else self._source
        there = self.device if device is None else torch.device(device)
        made = Converted(source, there, self.dtype if dtype is None else dtype)
        return Rows(made, stored=self._stored, reopen=self._reopen)
