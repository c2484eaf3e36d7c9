"""The rows around others in the same example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lamina.runs.scan.indexed import spread

if TYPE_CHECKING:
    from lamina.runs.scan.cells import Cells
    from lamina.runs.scan.groups import Group


def around(cells: Cells, groups: Sequence[Group], hits: pl.DataFrame, most: int) -> tuple[np.ndarray, np.ndarray]:
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
    names, near = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    positions = hits["position"].to_numpy()
    for group, some in _holding(cells, groups, hits).items():
        which, at = _with_examples(cells, group, hits["example"][some])
        hit = some[which]
        # a null becomes NaN, which is near to nothing
        there = cells.column(group.number, "position").to_numpy()
        close = np.abs(there[at] - positions[hit]) <= most
        at = at[close]
        names.append(group.first + at if group.kind == "own" else cells.names(group.number)[at])
        near.append(hit[close])
    return np.concatenate(names), np.concatenate(near)


def _with_examples(cells: Cells, group: Group, wanted: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a group that have one of some examples: which of these, and where."""
    examples = cells.column(group.number, "example")
    if wanted.null_count() or examples.dtype != pl.Int64 or not cells.ascends(group.number, "example"):
        same = [np.flatnonzero((examples == example).fill_null(False).to_numpy()) for example in wanted]
        return np.repeat(np.arange(len(same)), [at.size for at in same]), np.concatenate(same)
    column, values = examples.to_numpy(), wanted.to_numpy()
    return spread(np.searchsorted(column, values), np.searchsorted(column, values, side="right"))


def _holding(cells: Cells, groups: Sequence[Group], hits: pl.DataFrame) -> dict[Group, np.ndarray]:
    """The groups that may hold rows of the hits' examples and steps, with the numbers of these hits."""
    may = np.ones((hits.height, len(groups)), dtype=bool)
    numbers = [group.number for group in groups]
    for name in ("example", "step"):
        if name in hits.columns:
            zones, values = cells.zones(name), hits[name].to_numpy()
            least, greatest = (zones[bound].to_numpy()[numbers] for bound in ("least", "greatest"))
            if hits[name].dtype == pl.Int64 and not hits[name].null_count():
                # where a bound is not known it is NaN, which excludes nothing
                may &= ~((least > values[:, None]) | (greatest < values[:, None]))
    return {groups[at]: np.flatnonzero(may[:, at]) for at in np.flatnonzero(may.any(axis=0)).tolist()}
