"""What lies behind `Rows`: a tensor in memory, a stored site, or what else can gather rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import polars as pl

if TYPE_CHECKING:
    import torch


class Source(Protocol):
    """What lies behind `Rows`.

    Optional: `checks`, true where `gather` and `narrow` raise IndexError for a position that is not there.
    """

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
