"""Rows of a stored site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.errors import NotFoundError
from lamina.runs import frames
from lamina.runs.buffers import torch_dtype
from lamina.runs.nearest import nearest_names

if TYPE_CHECKING:
    import torch

    from lamina._core import Snapshot
    from lamina.runs.scan import Group


class StoredRows:
    """A source for `lamina.rows.Rows`: row names in order, and where each lies."""

    def __init__(
        self,
        snapshot: Snapshot,
        site: str,
        dtype: str,
        width: int,
        ids: np.ndarray,
        groups: list[Group],
        metadata: pl.LazyFrame,
    ) -> None:
        self._snapshot = snapshot
        self._site = site
        self._groups = groups
        self._firsts = np.array([group.first for group in groups], dtype=np.int64)
        self._metadata = metadata
        self._dtype = dtype
        self.ids = ids
        self.shape = (ids.size, width)

    @property
    def dtype(self) -> torch.dtype:
        """The stored dtype."""
        return torch_dtype(self._dtype)

    def gather(self, positions: np.ndarray, out: torch.Tensor) -> None:
        """Fills `out` with the rows at these positions, in their order."""
        import torch

        names = self.ids[positions]
        if not out.is_contiguous() or out.device.type != "cpu":
            staged = torch.empty(out.shape, dtype=out.dtype)
            self.gather(positions, staged)
            out.copy_(staged)
            return
        data = out.reshape(-1).view(torch.uint8).numpy()
        item = data.size // max(names.size, 1)
        which = np.searchsorted(self._firsts, names, side="right") - 1
        starts = np.flatnonzero(np.diff(which, prepend=-1))
        if starts.size > 2 * np.unique(which).size:
            # scattered over the groups: each is visited once, then the rows are put in order
            order = np.argsort(which, kind="stable")
            sorted_out = torch.empty_like(out)
            self.gather(positions[order], sorted_out)
            out[torch.from_numpy(order)] = sorted_out
            return
        for start, stop in zip(starts, [*starts[1:], names.size], strict=True):
            group = self._groups[which[start]]
            inside = np.ascontiguousarray(names[start:stop] - group.first)
            self._snapshot.gather(group.number, self._site, inside.view(np.uint8), data[start * item : stop * item])

    @property
    def columns(self) -> list[str]:
        """The names of the metadata columns, and of those that the run's examples have beside."""
        own = self._metadata.collect_schema().names()
        return own + [name for name, _ in self._snapshot.columns("examples") if name not in own]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """Metadata of the rows, in their order; what the rows do not have themselves is their example's."""
        if unknown := [name for name in columns if name not in self.columns]:
            raise NotFoundError(f"the rows have no column {unknown[0]!r}", hint=nearest_names(unknown[0], self.columns))
        own = self._metadata.collect_schema().names()
        of_examples = [name for name in columns if name not in own]
        keys = [name for name in ("example", "position") if name in own] if of_examples else []
        if of_examples and "example" not in keys:
            raise NotFoundError(f"the rows name no example to look {of_examples[0]!r} up by")
        frame = self._metadata.select("row", *(name for name in own if name != "row" and name in {*columns, *keys}))
        if of_examples:
            frame = _look_up(frame, frames.examples(self._snapshot), keys, of_examples)
        return frame.collect().select(columns)


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
