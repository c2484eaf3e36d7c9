"""The nearest rows of some rows, exactly, and without a matrix of all distances.

A block of queries meets the rows block by block. Squared distances come from a matrix product, whose rounding can be
as large as the distance between near rows (of 10,000 rows in float32, 348 that differ were seen at distance 0). So a
few more candidates are kept than are asked for, their distances are computed again from differences in float64, and a
query is done only if no other row can be nearer, given the product's rounding. What is left is compared with all rows
by differences in float64.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lamina.rows.aligned import Aligned
from lamina.rows.centering import center

QUERIES, ROWS, TILE = 2048, 4096, 64
"""Queries and rows that meet at a time; of each tile of so many distances the smallest is found first."""
SPARE = 6
"""Candidates beyond those that are asked for."""


class Nearest(NamedTuple):
    """Attributes.

    distances: float64 [queries, k], ascending; inf where there are fewer rows.
    rows: int64 [queries, k], which rows they are.
    again: How many queries were compared with all rows a second time.
    """

    distances: Tensor
    rows: Tensor
    again: int


def nearest(aligned: Aligned, queries: np.ndarray, k: int, *, by: Tensor, within_groups: bool) -> Nearest:
    """Return the distances of the k nearest other rows.

    Args:
        aligned: Rows, as x.
        queries: int64, the places of the rows whose nearest are wanted.
        k: How many.
        by: What is subtracted from all rows first, in the dtype of the arithmetic; give the means.
        within_groups: Whether rows of the query's own group count (never the query itself).
    """
    distances = torch.zeros(queries.size, k, dtype=torch.float64)
    rows, again = torch.zeros(queries.size, k, dtype=torch.int64), 0
    for start in range(0, queries.size, QUERIES):
        here = queries[start : start + QUERIES]
        there = slice(start, start + here.size)
        distances[there], rows[there], open_ = _few(aligned, here, k, by, within_groups)
        if open_.any():
            again += int(open_.sum())
            at = start + torch.from_numpy(np.flatnonzero(open_))
            distances[at], rows[at] = _all(aligned, here[open_], k, within_groups)
    return Nearest(distances, rows, again)


def _few(aligned: Aligned, queries: np.ndarray, k: int, by: Tensor, within: bool) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return distances and rows by candidates, and which queries are not certain."""
    block = aligned.gather(queries)
    q = center(block.x, by)
    q2 = q.square().sum(1)
    left = torch.cat([-2 * q, torch.ones(len(q), 1, dtype=q.dtype)], 1)
    wanted = k + SPARE
    best = torch.full((len(q), wanted), torch.inf, dtype=q.dtype)
    at = torch.zeros(len(q), wanted, dtype=torch.int64)
    largest = 0.0
    # fresh memory for each block would take as long as the product
    memory = q.new_empty(len(q) * min(ROWS, len(aligned)))
    for start in range(0, len(aligned), ROWS):
        rows = np.arange(start, min(start + ROWS, len(aligned)))
        other = aligned.gather(rows)
        r = center(other.x, by)
        r2 = r.square().sum(1)
        largest = max(largest, float(r2.max()))
        # -2 q r + |r|^2 in one product; |q|^2 moves no row before another
        d2 = memory[: len(q) * len(r)].view(len(q), len(r))
        torch.mm(left, torch.cat([r, r2[:, None]], 1).T, out=d2)
        _hide(d2, queries, rows, block.codes, other.codes, within)
        _keep_smallest(d2, best, at, start)
    # again, from differences
    known = torch.isfinite(best)
    distances = torch.full((len(q), wanted), torch.inf, dtype=torch.float64)
    for candidate in range(wanted):
        there = aligned.gather(at[:, candidate].numpy()).x.double()
        distances[:, candidate] = (block.x.double() - there).square().sum(1)
    distances[~known] = torch.inf
    distances, order = distances.sort(dim=1, stable=True)
    distances, at = distances[:, :k], at.gather(1, order)[:, :k]
    # a product of d terms, and two sums of squares, are off by at most about d units of rounding each
    rounding = (q.shape[1] + 4) * torch.finfo(q.dtype).eps * (q2.double() + largest)
    floor = best[:, -1].double() + q2.double() - rounding
    certain = (distances[:, -1] <= floor) | (distances[:, -1] == 0) | ~known[:, -1]
    return distances.sqrt(), at, ~certain.numpy()


def _all(aligned: Aligned, queries: np.ndarray, k: int, within: bool) -> tuple[Tensor, Tensor]:
    """Return distances and rows by the differences from all rows."""
    block = aligned.gather(queries)
    q = block.x.double()
    best = torch.full((len(q), k), torch.inf, dtype=torch.float64)
    at = torch.zeros(len(q), k, dtype=torch.int64)
    for start in range(0, len(aligned), ROWS):
        rows = np.arange(start, min(start + ROWS, len(aligned)))
        other = aligned.gather(rows)
        distances = torch.cdist(q, other.x.double(), compute_mode="donot_use_mm_for_euclid_dist")
        _hide(distances, queries, rows, block.codes, other.codes, within)
        places = torch.arange(start, start + rows.size).expand(len(q), -1)
        best, order = torch.cat([best, distances], 1).topk(k, largest=False)
        at = torch.cat([at, places], 1).gather(1, order)
    return best, at


def _hide(d: Tensor, queries: np.ndarray, rows: np.ndarray, own: np.ndarray, theirs: np.ndarray, within: bool) -> None:
    """Put the query itself, and the rows of its group, out of reach."""
    if within:
        own, theirs = queries, rows
    # a group's rows stand together, so that most blocks hold none of them
    near = np.flatnonzero(np.isin(own, theirs))
    if near.size:
        same = torch.from_numpy(own[near][:, None] == theirs[None])
        d[torch.from_numpy(near)] = d[torch.from_numpy(near)].masked_fill_(same, torch.inf)


def _keep_smallest(d: Tensor, best: Tensor, at: Tensor, first: int) -> None:
    """Put what is smaller than the largest of `best` into it, and its column, counted from `first`, into `at`.

    Most queries find nothing in most blocks, and what one finds lies in as many tiles with the smallest minima.
    """
    k, whole = best.shape[1], d.shape[1] // TILE * TILE
    tiles = d[:, :whole].unflatten(1, (-1, TILE))
    minima = tiles.amin(2)
    rest = d[:, whole:]
    lowest = torch.cat([minima, rest], 1).amin(1)
    some = torch.nonzero(lowest < best[:, -1]).flatten()
    if not len(some):
        return
    chosen = minima[some].topk(min(k, minima.shape[1]), dim=1, largest=False).indices
    columns = (chosen[:, :, None] * TILE + torch.arange(TILE)).flatten(1)
    columns = torch.cat([columns, torch.arange(whole, d.shape[1]).expand(len(some), -1)], 1)
    values = torch.cat([best[some], d[some[:, None], columns]], 1)
    smallest, order = values.topk(k, dim=1, largest=False)
    best[some], at[some] = smallest, torch.cat([at[some], columns + first], 1).gather(1, order)
