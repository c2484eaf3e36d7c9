"""Rows that come out on another device or in another dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.rows import pool

if TYPE_CHECKING:
    import torch

    from lamina.rows.source import Source


class Converted:
    """A source for `Rows`: those of another source, converted as they are gathered.

    Args:
        source: Whose rows they are.
        device: Where they come out.
        dtype: What they come out as.
    """

    converts = True

    def __init__(self, source: Source, device: torch.device, dtype: torch.dtype) -> None:
        self.inner = source
        self.device = device
        self.dtype = dtype
        self.shape = source.shape
        self.preshuffled = getattr(source, "preshuffled", False)
        if tell := getattr(source, "will_need", None):
            self.will_need = tell

    @property
    def ids(self) -> np.ndarray:
        """The names of the rows."""
        return self.inner.ids

    def gather(self, positions: np.ndarray | range, out: torch.Tensor, threads: int | None = None) -> None:
        """Fills `out` with the rows at these positions."""
        if getattr(self.inner, "converts", False):
            self.inner.gather(positions, out, threads)
            return
        staged = pool.empty((len(positions), self.shape[1]), self.inner.dtype)
        self.inner.gather(positions, staged, threads)
        out.copy_(staged)

    def narrow(self, positions: np.ndarray | range) -> Converted:
        """Some of the rows."""
        return Converted(self.inner.narrow(positions), self.device, self.dtype)

    @property
    def columns(self) -> list[str]:
        """The names of the metadata columns."""
        return self.inner.columns

    def metadata(self, columns: Sequence[str]) -> pl.DataFrame:
        """Metadata of all rows."""
        return self.inner.metadata(columns)
