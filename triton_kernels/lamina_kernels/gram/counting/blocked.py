"""Pairs within a radius, and in bins of distance, in plain torch: bounds decide, and what they leave is compared."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.bounds import Bounds
from lamina_kernels.gram.counting.thresholds import Thresholds
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.selection import gathered
from lamina_kernels.tiles.rows import tiles

ROWS, COLUMNS = 1024, 512
"""Rows and columns of a tile: of 2 MB in float32, it stays in the caches of two cores while it is worked on."""


def count(p: Pairs, radii: Thresholds) -> Tensor:
    """Return how many rows of y lie within the radius of each row of x, [n] int64."""
    out = torch.zeros(p.n, dtype=torch.int64, device=p.x.device)
    bounds = Bounds("count", p, ROWS * COLUMNS)
    low, high = radii.limits()
    for rows in tiles(p.n, ROWS):
        x = bounds.left(rows)
        for columns in tiles(p.m, COLUMNS):
            y = bounds.right(columns)
            tile = bounds.tile(x, y)
            near = tile <= bounds.above(high[rows])[:, None]
            open_ = near & (tile > bounds.below(low[rows] - bounds.slack(x, y))[:, None])
            row, column = open_.nonzero().unbind(1)
            total = near.sum(1)
            if len(row):
                here = rows.start + row
                found = gathered.distances_of_pairs(bounds.base, p.x, p.y, here, columns.start + column)
                total -= row[~radii.within(found, here)].bincount(minlength=len(total))
            out[rows] += total
        out[rows].masked_fill_(x.lost, 0)
    return out


def histogram(p: Pairs, edges: Thresholds) -> Tensor:
    """Return how many pairs lie in each bin, [edges - 1] int64."""
    counts = torch.zeros(len(edges.values) + 1, dtype=torch.int64, device=p.x.device)
    bounds = Bounds("distance_histogram", p, ROWS * COLUMNS)
    low, high = edges.limits()
    low, high = bounds.below(low), bounds.above(high)
    for rows in tiles(p.n, ROWS):
        x = bounds.left(rows)
        for columns in tiles(p.m, COLUMNS):
            y = bounds.right(columns)
            tile = bounds.tile(x, y).masked_fill_(x.lost[:, None], torch.inf)
            # How many edges are at or below each distance: for certain, and at most.
            least = torch.bucketize(tile, high)
            most = torch.bucketize(tile.add_(bounds.slack(x, y)[:, None]), low, right=True)
            row, column = (least != most).nonzero().unbind(1)
            if len(row):
                found = gathered.distances_of_pairs(bounds.base, p.x, p.y, rows.start + row, columns.start + column)
                least[row, column] = edges.below(found)
            counts += least.flatten().bincount(minlength=len(counts))
    return counts[1:-1]
