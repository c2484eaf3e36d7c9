"""The rows around others in the same example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.runs.scan.cells import Kept

if TYPE_CHECKING:
    from lamina.runs.scan.cells import Cells
    from lamina.runs.scan.groups import Group, InOrder


def around(cells: Cells, groups: InOrder, hits: pl.DataFrame, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have the example of a hit, and a position at most so far from its.

    Of each group that can hold such rows (its zones say so) the columns `example` and `position` are read, and looked
    through only where they do not ascend.

    Args:
        cells: The metadata of the snapshot.
        groups: The groups to look at.
        hits: Rows: `example`, `position`, and `step` if there is such a column.
        most: How far.

    Returns:
        The names of the rows, int64, and for each to which of the hits it is near. A hit is near itself.
    """
    examples = Kept.of(hits["example"])
    names, positions, near, sizes = [np.empty(0, np.int64)], [np.empty(0)], [], []
    for group, some in _holding(cells, groups, hits).items():
        example, position = cells.kept((group.number,), ["example", "position"])
        # a null becomes NaN, which is near to nothing
        there = position.series.to_numpy() if position.array is None else position.array
        near += some
        for at in _places(example, examples, some, ascends=cells.ascends(group.number, "example")):
            inside = there[at]
            positions.append(inside)
            sizes.append(inside.size)
            if group.kind == "own":
                first = np.arange(at.start, at.stop) if isinstance(at, slice) else at
                names.append(first + group.first)
            else:
                names.append(cells.names(group.number)[at])
    hit = np.repeat(np.array(near, dtype=np.int64), sizes)
    close = np.flatnonzero(abs(np.concatenate(positions) - hits["position"].to_numpy()[hit]) <= most)
    return np.concatenate(names)[close], hit[close]


def _places(column: Kept, examples: Kept, some: list[int], *, ascends: bool) -> list[slice] | list[np.ndarray]:
    """Where a group, whose column it is, has rows of each of some examples."""
    if column.array is None or examples.array is None or not ascends:
        wanted = [examples.series[at] for at in some]
        return [np.flatnonzero((column.series == example).fill_null(False).to_numpy()) for example in wanted]
    values = examples.array[some]
    starts, stops = (column.array.searchsorted(values, side).tolist() for side in ("left", "right"))
    return [slice(*ends) for ends in zip(starts, stops, strict=True)]


def _holding(cells: Cells, groups: InOrder, hits: pl.DataFrame) -> dict[Group, list[int]]:
    """The groups that may hold rows of the hits' examples and steps, with the numbers of these hits."""
    may = np.ones((hits.height, len(groups.groups)), dtype=bool)
    for name in ("example", "step"):
        if name in hits.columns:
            zones, values = cells.zones(name), hits[name].to_numpy()
            least, greatest = (zones[bound].to_numpy()[groups.numbers] for bound in ("least", "greatest"))
            if hits[name].dtype == pl.Int64 and not hits[name].null_count():
                # where a bound is not known it is NaN, which excludes nothing
                may &= ~((least > values[:, None]) | (greatest < values[:, None]))
    return {groups.groups[at]: np.flatnonzero(may[:, at]).tolist() for at in np.flatnonzero(may.any(axis=0)).tolist()}
