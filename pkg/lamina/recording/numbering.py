"""Numbers for batch items that nobody named: on each rank others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.recording.ranks import own_rank, world_size

if TYPE_CHECKING:
    from lamina.runs import Run


class Numbering:
    """Numbers batch items that have no `example` of their own: `start`, `start + 1`, … through a recording.

    Of several ranks each takes every so many-th number: rank 1 of 2 has the odd ones. The first is a multiple of how
    many there are, so that they stay apart even if ranks begin behind different rows.
    """

    def __init__(self, start: int = 0) -> None:
        self._stride = world_size()
        self._next = -(-start // self._stride) * self._stride + (own_rank() or 0)
        self._step: dict[tuple[int, int], int] = {}

    @classmethod
    def behind(cls, run: Run) -> Numbering:
        """Begin behind all examples that the run holds, so that the items of two recordings stay apart."""
        rows = run.activations() if run.steps() else pl.LazyFrame()
        if not rows.collect_schema().get("example", pl.Null).is_integer():
            return cls()
        last = rows.select(pl.col("example").max()).collect().item()
        return cls(0 if last is None else last + 1)

    def begin_step(self) -> None:
        """Forget which batches were numbered: those of the next step are others."""
        self._step.clear()

    def of(self, batch: int, size: int) -> np.ndarray:
        """Return the numbers of the `size` items of a batch: for all sites of that size the same."""
        if (batch, size) not in self._step:
            self._step[batch, size] = self._next
            self._next += size * self._stride
        first = self._step[batch, size]
        return np.arange(first, first + size * self._stride, self._stride)
