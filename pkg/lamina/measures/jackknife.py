"""The standard error of a statistic from its values with some groups left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lamina.errors import SchemaError


@dataclass(frozen=True)
class Replicates:
    """A statistic with one bucket of groups left out at a time.

    Attributes:
        keys: What each bucket is called, alike for all estimates on the same groups.
        sizes: The rows that each bucket holds.
        values: The statistic without the bucket's rows: numbers, or nested tuples for arrays.
    """

    keys: tuple[Any, ...]
    sizes: tuple[int, ...]
    values: tuple[Any, ...]

    @staticmethod
    def of_sums(
        keys: Sequence[Any], sizes: Any, sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, Replicates]:
        """Return a statistic of sums over all rows, and without each bucket.

        Args:
            keys: What the buckets are called.
            sizes: Rows of each bucket.
            sums: [buckets, …], sums over the rows of each.
            statistic: Makes [k, …] of [k, …]; the first axis is what it is computed for at once.

        Example:
            >>> sums = np.array([[1.0, 3.0], [1.0, 4.0], [1.0, 8.0]])       # a row and its value, in each bucket
            >>> value, left = Replicates.of_sums("abc", [1, 1, 1], sums, lambda sums: sums[:, 1] / sums[:, 0])
            >>> float(value), left.values
            (5.0, (6.0, 5.5, 3.5))
        """
        total = sums.sum(0)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(statistic(np.concatenate([total[None], total - sums])))
        return values[0], Replicates.of(keys, sizes, values[1:])

    @staticmethod
    def of(keys: Sequence[Any], sizes: Any, values: np.ndarray) -> Replicates:
        """Make them of an array [buckets, …]."""
        each = values.tolist()
        return Replicates(tuple(keys), tuple(int(size) for size in sizes), tuple(map(_frozen, each)))

    @property
    def array(self) -> np.ndarray:
        """The values, [buckets, …]."""
        return np.array(self.values, dtype=np.float64)

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Replicates:
        """Return the replicates of what a function makes of all values at once."""
        return Replicates.of(self.keys, self.sizes, function(self.array))

    def combine(self, other: Replicates, mine: float, theirs: float) -> Replicates:
        """Return the replicates of `mine` times this statistic plus `theirs` times another.

        Raises:
            SchemaError: They leave out other buckets.
        """
        if self.keys != other.keys:
            raise SchemaError(
                "the two estimates are not on the same groups, so the error of their combination is not known",
                hint="compare their intervals, or estimate both on the same examples with the same groups=",
            )
        return self.map(lambda values: mine * values + theirs * other.array)

    def stderr(self, value: Any) -> Any:
        """Return the delete-m_j jackknife's standard error of a statistic whose value on all rows is `value`.

        With g buckets of m_j out of n rows, h_j = n / m_j and v_j the statistic without bucket j, the pseudo-values
        are p_j = h_j value - (h_j - 1) v_j, their center is c = g value - sum_j (1 - m_j / n) v_j, and the variance is
        the mean of (p_j - c)^2 / (h_j - 1) (Busing, Meijer, van der Leeden, Statistics and Computing 9, 1999). For
        equal buckets it is the usual jackknife. NaN for fewer than two buckets, or where a replicate is not defined.

        Example:
            >>> halves = Replicates(("a", "b"), (1, 1), (3.0, 1.0))     # the mean of 1 and 3, one left out at a time
            >>> halves.stderr(2.0)
            1.0
        """
        if len(self.values) < 2:
            return np.asarray(value, np.float64) * math.nan if np.ndim(value) else math.nan
        values = self.array
        sizes = np.array(self.sizes, float)
        h = (sizes.sum() / sizes).reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(invalid="ignore"):  # replicates that are infinite: the error is NaN, as said above
            center = len(values) * np.asarray(value) - ((1 - 1 / h) * values).sum(0)
            pseudo = h * value - (h - 1) * values
            error = np.sqrt(np.mean((pseudo - center) ** 2 / (h - 1), axis=0))
        return error if np.ndim(value) else float(error)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
