"""The walk of a program over the rows of y: whole tiles first, which no mask is computed for, then the others."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl


class Walk(NamedTuple):
    """Which tiles of columns a program visits, by their numbers.

    The others are those from `low` to `high`, which meet the diagonal, and from `edge` to `stop`, beyond the last row.
    """

    start: tl.tensor
    low: tl.tensor
    high: tl.tensor
    edge: tl.tensor
    stop: tl.tensor


@triton.jit
def walk_of(row, split, splits, m, SAME: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return the walk of ROWS rows over one of the splits of the m rows of y, where the first of them is number `row`.

    The number counts only if they are the SAME rows; it may lie outside.
    """
    share = tl.cdiv(tl.cdiv(m, COLUMNS), splits)
    start = split * share
    stop = tl.minimum(start + share, tl.cdiv(m, COLUMNS))
    stop = tl.maximum(stop, start)
    edge = tl.minimum(tl.maximum(m // COLUMNS, start), stop)
    low, high = start, start
    if SAME:
        low = tl.minimum(tl.maximum(tl.maximum(row, 0) // COLUMNS, start), edge)
        high = tl.minimum(tl.maximum(tl.cdiv(tl.maximum(row + ROWS, 0), COLUMNS), low), stop)
    return Walk(start, low, high, tl.maximum(edge, high), stop)


@triton.jit
def turns(walk, EDGE: tl.constexpr):
    """Return how many whole tiles there are, or how many others."""
    if EDGE:
        return (walk.high - walk.low) + (walk.stop - walk.edge)
    else:
        return (walk.low - walk.start) + (walk.edge - walk.high)


@triton.jit
def tile_at(walk, turn, EDGE: tl.constexpr):
    """Return the number of a tile."""
    if EDGE:
        return tl.where(turn < walk.high - walk.low, walk.low + turn, walk.edge + turn - (walk.high - walk.low))
    else:
        return tl.where(turn < walk.low - walk.start, walk.start + turn, walk.high + turn - (walk.low - walk.start))
