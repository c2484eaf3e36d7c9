"""Rows of a stored site."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.errors import NotFoundError
from lamina.runs import frames
from lamina.runs.buffers import NUMPY_DTYPES, torch_dtype
from lamina.runs.nearest import nearest_names
from lamina.runs.scan.cells import taken

if TYPE_CHECKING:
    import torch

    from lamina._core import SiteRows, Snapshot


class StoredRows:
    """A source for `lamina.rows.Rows`: selected rows of a site.

    Args:
        snapshot: Where they lie.
        rows: Which.
        dtype: The site's dtype, by the name it has in the store.
        width: Numbers in a row.
        frame: Makes the frame of their metadata. It may hold further rows, in another order.
        columns: The columns of that frame.
        preshuffled: Whether they lie in shuffled order.
    """

    checks = True
    """`gather` raises IndexError for a position that is not there."""

    def __init__(
        self,
        snapshot: Snapshot,
        rows: SiteRows,
        dtype: str,
        width: int,
        frame: Callable[[], pl.LazyFrame],
        columns: Sequence[str],
        *,
        preshuffled: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._rows = rows
        self._dtype = dtype
        self._frame = frame
        self._own = list(columns)
        self.preshuffled = preshuffled
        self.shape = (len(rows), width)

    @property
    def ids(self) -> np.ndarray:
        """The rows' permanent names."""
        return np.frombuffer(self._rows.ids(), dtype=np.int64)

    @property
    def dtype(self) -> torch.dtype:
        """The stored dtype."""
        return self._torch_dtype

    @cached_property
    def _torch_dtype(self) -> torch.dtype:
        return torch_dtype(self._dtype)

    def state(self) -> list[tuple[str, int, int, bytes]]:
        """Which rows, for another process that has the run open."""
        return self._rows.state()

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions, in their order."""
        # few calls: between other work the caches hold none of their code, and each costs ten microseconds and more
        torch = sys.modules["torch"]
        if not (out.is_cpu and out.is_contiguous()):
            staged = torch.empty(out.shape, dtype=out.dtype)
            self.gather(positions, staged, threads)
            out.copy_(staged)
            return
        out = out.detach() if out.requires_grad else out
        # NumPy knows neither bf16 nor f8
        data = (out if self._dtype in NUMPY_DTYPES else out.reshape(-1).view(torch.uint8)).numpy().reshape(-1)
        data = data.view(np.uint8)
        threads = threads or int(torch.get_num_threads())
        if isinstance(positions, range) and positions.step == 1:
            self._rows.read(positions.start, data, threads)
        else:
            self._rows.gather(np.ascontiguousarray(positions, np.int64).view(np.uint8), data, threads)

    def narrow(self, positions: np.ndarray | range) -> StoredRows:
        """Some of the rows."""
        rows = self._narrowed(positions)
        # what is taken by position may come in any order
        preshuffled = self.preshuffled and isinstance(positions, range)
        made = (self._snapshot, rows, self._dtype, self.shape[1], self._frame, self._own)
        return StoredRows(*made, preshuffled=preshuffled)

    def _narrowed(self, positions: np.ndarray | range) -> SiteRows:
        if isinstance(positions, range) and positions.step == 1:
            return self._rows.narrow_span(positions.start, max(positions.start, positions.stop))
        return self._rows.narrow(np.ascontiguousarray(positions, dtype=np.int64).view(np.uint8))

    def will_need(self, spans: Sequence[tuple[int, int]]) -> None:
        """Starts to read rows that will be asked for soon: from the first to before the second position of spans."""
        self._rows.will_need(spans)

    @property
    def columns(self) -> list[str]:
        """The names of the metadata columns, and of those that the run's examples have beside."""
        return self._own + [name for name, _ in self._snapshot.columns("examples") if name not in self._own]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """Metadata of the rows, in their order; what the rows do not have themselves is their example's."""
        if unknown := [name for name in columns if name not in self.columns]:
            raise NotFoundError(f"the rows have no column {unknown[0]!r}", hint=nearest_names(unknown[0], self.columns))
        of_examples = [name for name in columns if name not in self._own]
        keys = [name for name in ("example", "position") if name in self._own] if of_examples else []
        if of_examples and "example" not in keys:
            raise NotFoundError(f"the rows name no example to look {of_examples[0]!r} up by")
        frame = self._frame().select(
            "row", *(name for name in self._own if name != "row" and name in {*columns, *keys})
        )
        if of_examples:
            frame = _look_up(frame, frames.examples(self._snapshot), keys, of_examples)
        found = frame.collect()
        ids = pl.Series("row", self.ids)
        if not found["row"].equals(ids):
            found = ids.to_frame().join(found, on="row", how="left", maintain_order="left")
        return found.select(columns)


def with_examples(snapshot: Snapshot, examples: Callable[[], pl.DataFrame], frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of few rows with what the run's examples, which are put together only then, have beside."""
    names = [name for name, _ in snapshot.columns("examples") if name not in frame.columns]
    keys = [name for name in ("example", "position") if name in frame.columns]
    if not names or "example" not in keys:
        return frame
    table = examples()
    if (at := _in_order(table, frame)) is not None:
        return frame.hstack([taken(table[name], at) for name in names])
    some = _of_examples(table, frame["example"]).lazy()
    return _look_up(frame.lazy(), some, keys, names).select(*frame.columns, *names).collect()


def _in_order(examples: pl.DataFrame, frame: pl.DataFrame) -> np.ndarray | None:
    """Where the examples of all rows of a frame stand in a table in which examples ascend, and positions count on.

    None where they do not, or one of them is missing: to ask Polars takes as long as all else that few rows take.
    """
    keys = ["example", *(["position"] if "position" in examples.columns else [])]
    if not examples["example"].flags["SORTED_ASC"] or (len(keys) > 1 and keys[1] not in frame.columns):
        return None
    known, wanted = ([table[key] for key in keys] for table in (examples, frame))
    if examples.is_empty() or any(column.dtype != pl.Int64 or column.null_count() for column in (*known, *wanted)):
        return None
    columns = [(column.to_numpy(), values.to_numpy()) for column, values in zip(known, wanted, strict=True)]
    last = examples.height - 1
    at = np.minimum(np.searchsorted(*columns[0]), last)
    if "position" in keys:
        positions, values = columns[1]
        at = (at + values - positions[at]).clip(0, last)
    return at if all((column[at] == values).all() for column, values in columns) else None


def _of_examples(examples: pl.DataFrame, wanted: pl.Series) -> pl.DataFrame:
    """What is known of some examples: found by halving where they ascend, as they mostly do."""
    column, wanted = examples["example"], wanted.drop_nulls().unique()
    if not column.flags["SORTED_ASC"] or column.null_count() or column.dtype != pl.Int64:
        return examples.filter(column.is_in(wanted.implode()))
    low, high = (np.searchsorted(column.to_numpy(), wanted.to_numpy(), side) for side in ("left", "right"))
    return examples[np.concatenate([np.arange(*ends) for ends in zip(low, high, strict=True)] or [low])]


def _look_up(frame: pl.LazyFrame, examples: pl.LazyFrame, keys: list[str], names: list[str]) -> pl.LazyFrame:
    """Add columns of the examples: what they say of the position, else what they say of the example as a whole."""
    if "position" not in examples.collect_schema():
        return frame.join(examples.select("example", *names), on="example", how="left", maintain_order="left")
    whole = examples.filter(pl.col("position").is_null()).select("example", *names)
    frame = frame.join(whole, on="example", how="left", maintain_order="left")
    if "position" in keys:
        there = examples.drop_nulls("position").select(*keys, *names)
        frame = frame.join(there, on=keys, how="left", maintain_order="left", suffix=" there")
        frame = frame.with_columns(pl.coalesce(f"{name} there", name).alias(name) for name in names)
    return frame
