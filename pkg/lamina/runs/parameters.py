"""Rows of one parameter of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.rows.memory import Memory

if TYPE_CHECKING:
    import torch

    from lamina.runs.run import Run


PART = "model"
"""The part of a checkpoint that parameters are looked for in."""


def is_saved(run: Run, name: str, step: int) -> bool:
    """Whether the checkpoint of this step holds a tensor of this name."""
    return not run.checkpoints().filter(step=step, part=PART, tensor=name).collect().is_empty()


class Parameter:
    """A source for `Rows`: a tensor of a checkpoint, whose first axis are the rows (units).

    Rows are named by their number; `position` is the same number, as where a parameter is recorded as a site. The
    tensor is loaded when rows are first asked for, and kept.

    Args:
        run: The run.
        name: The tensor's name in the part.
        step: The checkpoint's step.

    Raises:
        SchemaError: It is a single number.
    """

    converts = True

    def __init__(self, run: Run, name: str, step: int) -> None:
        (shape,) = run.checkpoints().filter(step=step, part=PART, tensor=name).collect()["shape"].to_list()
        if not shape:
            raise SchemaError(f"{name!r} is a single number", hint="rows need at least one axis")
        self._run, self._name, self._step = run, name, step
        rows, *item = shape
        self.shape = (rows, math.prod(item))
        self._loaded: Memory | None = None

    @property
    def _memory(self) -> Memory:
        if self._loaded is None:
            state: Any = self._run.load(self._step, part=PART)
            self._loaded = Memory(state[self._name])
        return self._loaded

    @property
    def ids(self) -> np.ndarray:
        """0 to n - 1."""
        return np.arange(self.shape[0], dtype=np.int64)

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's."""
        return self._memory.dtype

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        self._memory.gather(positions, out, threads)

    def narrow(self, positions: np.ndarray | range) -> Memory:
        """Some of the rows."""
        at = np.asarray(positions, dtype=np.int64)
        return Memory(self._memory.tensor[at], {"row": at, "position": at})

    @property
    def columns(self) -> list[str]:
        """`row` and `position`."""
        return ["row", "position"]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of all rows."""
        if unknown := [name for name in columns if name not in self.columns]:
            raise NotFoundError(f"the rows of a parameter have no column {unknown[0]!r}", hint="row and position")
        return pl.DataFrame({"row": self.ids, "position": self.ids}).select(columns)
