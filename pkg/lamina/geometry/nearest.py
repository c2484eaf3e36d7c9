"""The nearest rows of some rows, exactly, where the rows are read block by block and memory does not hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lamina.rows.aligned import Aligned
from lamina_kernels.gram import nearest as nearest_of_block

BLOCK = 2**22
"""Numbers of the queries that meet, and of the rows that they meet, at a time."""


class Nearest(NamedTuple):
    """Attributes.

    distances: float64 [queries, k], ascending; inf where there are fewer rows.
    rows: int64 [queries, k], which rows they are.
    again: How many times a query met a block of rows that products of rows could not decide.
    """

    distances: Tensor
    rows: Tensor
    again: int


def nearest(aligned: Aligned, queries: np.ndarray, k: int, *, dtype: torch.dtype, within_groups: bool) -> Nearest:
    """Return the distances of the k nearest other rows.

    Args:
        aligned: Rows, as x, all of them finite.
        queries: int64, the places of the rows whose nearest are wanted.
        k: How many.
        dtype: Of the products that choose candidates.
        within_groups: Whether rows of the query's own group count (never the query itself).
    """
    distances = torch.full((queries.size, k), torch.inf, dtype=torch.float64)
    places, again = torch.full((queries.size, k), -1, dtype=torch.int64), 0
    for there in _pieces(queries.size, aligned.x.width):
        here = queries[there]
        block = aligned.gather(here)
        x = block.x.to(dtype)
        for piece in _pieces(len(aligned), aligned.x.width):
            rows = np.arange(piece.start, piece.stop)
            other = aligned.gather(rows)
            ids = (here, rows) if within_groups else (block.codes, other.codes)
            found = nearest_of_block(
                x, other.x.to(dtype), min(k, rows.size), exclude=(torch.from_numpy(ids[0]), torch.from_numpy(ids[1]))
            )
            again += int(found.repaired)
            at = torch.where(found.indices < 0, -1, found.indices + piece.start)
            known = torch.cat([distances[there], _measured(aligned, block.x, at)], 1), torch.cat([places[there], at], 1)
            # rows at one distance stand in their order before, and stay so
            values, order = known[0].sort(dim=1, stable=True)
            distances[there], places[there] = values[:, :k], known[1].gather(1, order[:, :k])
    return Nearest(distances.sqrt(), places.clamp(min=0), again)


def _measured(aligned: Aligned, x: Tensor, at: Tensor) -> Tensor:
    """Return the squared distances of x to the rows at these places, from differences in float64; inf for place -1."""
    distances = torch.full(at.shape, torch.inf, dtype=torch.float64)
    for neighbor in range(at.shape[1]):
        there = aligned.gather(at[:, neighbor].clamp(min=0).numpy()).x
        distances[:, neighbor] = (x.double() - there.double()).square().sum(1)
    return distances.masked_fill(at < 0, torch.inf)


def _pieces(count: int, width: int) -> Iterator[slice]:
    step = max(64, BLOCK // max(width, 1))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))
