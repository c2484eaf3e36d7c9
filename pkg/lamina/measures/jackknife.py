"""The standard error of a statistic from its values with some groups left out."""

from __future__ import annotations

import math
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
        values: The statistic without the bucket's rows.
    """

    keys: tuple[Any, ...]
    sizes: tuple[int, ...]
    values: tuple[float, ...]

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
        values = tuple(mine * a + theirs * b for a, b in zip(self.values, other.values, strict=True))
        return Replicates(self.keys, self.sizes, values)

    def stderr(self, value: float) -> float:
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
            return math.nan
        sizes, values = np.array(self.sizes, float), np.array(self.values, float)
        h = sizes.sum() / sizes
        center = len(values) * value - ((1 - 1 / h) * values).sum()
        pseudo = h * value - (h - 1) * values
        return float(np.sqrt(np.mean((pseudo - center) ** 2 / (h - 1))))
