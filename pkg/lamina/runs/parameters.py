"""Rows of one parameter of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.runs.buffers import torch_dtype

if TYPE_CHECKING:
    import torch

    from lamina.runs.checkpointed import Checkpointed

PART = "model"
"""The part of a checkpoint that parameters are looked for in."""


def steps_of(run: Checkpointed, name: str) -> list[int]:
    """The steps of the checkpoints that hold a tensor of this name, ascending."""
    found = run.checkpoints().filter(part=PART, tensor=str(name)).select(pl.col("step").unique().sort())
    return found.collect()["step"].to_list()


class Parameter:
    """A source for `Rows`: a tensor of a checkpoint, whose first axis are the rows (units).

    Rows are named by their number; `position` is the same number, as where a parameter is recorded as a site. Only what
    is asked for is read.

    Args:
        run: The run.
        name: The tensor's name in the part.
        step: The checkpoint's step.

    Raises:
        SchemaError: It is a single number.
    """

    converts = True

    def __init__(self, run: Checkpointed, name: str, step: int) -> None:
        found = run.checkpoints().filter(step=step, part=PART, tensor=name).collect()
        shape = found["shape"].to_list()[0]
        if not shape:
            raise SchemaError(f"{name!r} is a single number", hint="rows need at least one axis")
        self._run, self._name, self._step = run, name, step
        self.dtype = torch_dtype(found["dtype"][0])
        self.ids = np.arange(shape[0], dtype=np.int64)
        self.shape = (shape[0], math.prod(shape[1:]))

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        at = self.ids[np.asarray(positions)]
        neighbors = at.size and (np.diff(at) == 1).all()
        rows = slice(int(at[0]), int(at[-1]) + 1) if neighbors else at.tolist()
        read = self._run.tensor(self._name, steps=self._step, rows=rows, part=PART)
        out.copy_(read.reshape(out.shape))

    def narrow(self, positions: np.ndarray | range) -> Parameter:
        """Some of the rows."""
        some = copy(self)
        some.ids = self.ids[np.asarray(positions, dtype=np.int64)]
        some.shape = (some.ids.size, self.shape[1])
        return some

    @property
    def columns(self) -> list[str]:
        """`row` and `position`."""
        return ["row", "position"]

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of all rows."""
        if unknown := [name for name in columns if name not in self.columns]:
            raise NotFoundError(f"the rows of a parameter have no column {unknown[0]!r}", hint="row and position")
        return pl.DataFrame({"row": self.ids, "position": self.ids}).select(columns)
