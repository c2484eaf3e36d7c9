"""Which of many matrices have the same rows, so that all their pairs are aligned at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import LaminaError
from lamina.rows.groups import Groups, groups_of
from lamina.rows.pairing import pair_rows

if TYPE_CHECKING:
    from lamina.rows.rows import Rows


@dataclass(frozen=True)
class Cohort:
    """Matrices of which any two pair without a row left over, and whose pairs have the same groups.

    Attributes:
        members: Their numbers.
        orders: For each the positions of its rows that belong to the rows of the first, in order; None where they are
            in order.
        groups: The groups of the first's rows.
    """

    members: list[int]
    orders: list[np.ndarray | None]
    groups: Groups


def cohorts(rows: Sequence[Rows], *, groups: Any = None, pair: str | None = None) -> Iterator[Cohort]:
    """Sort matrices into cohorts; what cannot be grouped as asked is in none.

    Args:
        rows: The matrices.
        groups: As in `lamina.rows.groups.groups_of`, for each of them.
        pair: As in `lamina.rows.pairing.pair_rows`.

    Example:
        >>> import torch
        >>> from lamina.rows import Rows
        >>> rows = [Rows.of(torch.zeros(n, d)) for n, d in ((5, 2), (6, 2), (5, 3))]
        >>> [cohort.members for cohort in cohorts(rows)]
        [[0, 2], [1]]
    """
    left = list(range(len(rows)))
    while left:
        first, *others = left
        try:
            gathered = _Gathered(rows[first], groups_of(rows[first], groups), groups, pair)
        except LaminaError:
            left = others
            continue
        members: list[int] = [first]
        orders: list[np.ndarray | None] = [None]
        left = []
        for other in others:
            joined, order = gathered.joins(rows[other])
            (members if joined else left).append(other)
            orders += [order] if joined else []
        yield Cohort(members, orders, gathered.groups)


class _Gathered:
    """A cohort while it is gathered."""

    def __init__(self, first: Rows, groups: Groups, asked: Any, pair: str | None) -> None:
        self.groups = groups
        self._first, self._asked, self._pair = first, asked, pair
        # the names of the stored rows that were met, which are alike for the sites of a step
        self._known: list[tuple[str, np.ndarray, np.ndarray | None]] = []
        self._remember(first, None)

    def _remember(self, rows: Rows, order: np.ndarray | None) -> None:
        if rows.stored is not None:
            self._known.append((rows.stored, rows.ids, order))

    def joins(self, new: Rows) -> tuple[bool, np.ndarray | None]:
        """Return whether a matrix joins, and the order of its rows."""
        for stored, ids, order in self._known:
            if stored != new.stored:
                continue
            if np.array_equal(ids, new.ids):
                return True, order
            if _overlap(ids, new.ids):
                # rows of a run pair by name where they share some: these would pair among themselves in another way
                return False, None
        try:
            of_first, of_new, dropped = pair_rows(self._first, new, self._pair)
            found = groups_of(new, self._asked)
        except LaminaError:
            return False, None
        if dropped or not np.array_equal(of_first, np.arange(len(self._first))):
            return False, None
        if not np.array_equal(found.codes[of_new], self.groups.codes) or not found.labels.equals(self.groups.labels):
            return False, None
        order = None if np.array_equal(of_new, np.arange(len(new))) else of_new
        self._remember(new, order)
        return True, order


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not a.size or not b.size or a.max() < b.min() or b.max() < a.min():
        return False
    return np.intersect1d(a, b).size > 0
