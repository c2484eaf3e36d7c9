"""What every measure returns: a value with its error, and all that one needs to know to read it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from lamina.measures.jackknife import Replicates
from lamina.measures.student import t_quantile


@dataclass(frozen=True)
class Estimate:
    """A measure's value, its error bar, and how both came about.

    Estimates on the same examples and groups add, subtract and scale with the right error, because their replicates
    do: `(a - b).stderr` is that of the difference, in which what they share cancels.

    Attributes:
        measure: The measure's name.
        value: The value.
        stderr: Its standard error; NaN where none can be given.
        unit: The value's unit; "1" for a number without one.
        n: Rows that it stands on.
        n_groups: Groups of rows that are independent of each other.
        dropped: Rows that were left out, by reason.
        estimator: Which estimator it is.
        error: How the standard error was found.
        options: The measure's options as they were used.
        dtype: The dtype of the arithmetic.
        seed: The seed of what was drawn at random, or None.
        parts: Values on the way, by name.
        replicates: The value with a bucket of groups left out at a time.

    Example:
        >>> whole = Replicates(("a", "b", "c"), (1, 1, 1), (2.5, 2.0, 1.5))
        >>> mean = Estimate("mean", 2.0, whole.stderr(2.0), n=3, n_groups=3, estimator="mean", replicates=whole)
        >>> round(mean.stderr, 4), (mean - mean).stderr
        (0.5774, 0.0)
    """

    measure: str
    value: float
    stderr: float
    unit: str = "1"
    n: int = 0
    n_groups: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    estimator: str = ""
    error: str = "delete-a-group jackknife"
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float64"
    seed: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    replicates: Replicates | None = None

    def __float__(self) -> float:
        return self.value

    def __repr__(self) -> str:
        error = "" if math.isnan(self.stderr) else f" ± {self.stderr:.2g}"
        return f"{self.measure} = {self.value:.4g}{error} ({self.estimator}; {self.n} rows in {self.n_groups} groups)"

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the ends of the confidence interval of Student's t; its degrees of freedom are buckets - 1.

        Args:
            level: The probability that the interval covers the estimator's mean.
        """
        if math.isnan(self.stderr):
            return math.nan, math.nan
        buckets = len(self.replicates.values) if self.replicates else self.n_groups
        reach = t_quantile(level, buckets - 1) * self.stderr
        return self.value - reach, self.value + reach

    def to_frame(self) -> pl.DataFrame:
        """Return one row: measure, part, estimator, options, value, unit, stderr, n, n_groups, dropped, seed."""
        row = {
            "measure": self.measure,
            "part": "value",
            "estimator": self.estimator,
            "options": json.dumps(dict(self.options), default=str),
            "value": self.value,
            "unit": self.unit,
            "stderr": self.stderr,
            "n": self.n,
            "n_groups": self.n_groups,
            "dropped": json.dumps(dict(self.dropped)),
            "seed": self.seed,
        }
        return pl.DataFrame([row], schema_overrides={"seed": pl.Int64})

    def __add__(self, other: Estimate) -> Estimate:
        return self._combined(other, 1.0, "+") if isinstance(other, Estimate) else NotImplemented

    def __sub__(self, other: Estimate) -> Estimate:
        return self._combined(other, -1.0, "-") if isinstance(other, Estimate) else NotImplemented

    def __mul__(self, factor: float) -> Estimate:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        left = self.replicates and replace(
            self.replicates, values=tuple(factor * value for value in self.replicates.values)
        )
        name = f"{factor:g} * {self.measure}"
        return replace(
            self,
            measure=name,
            value=factor * self.value,
            stderr=abs(factor) * self.stderr,
            parts={},
            replicates=left,
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        return self * (1 / divisor) if isinstance(divisor, (int, float)) else NotImplemented

    def _combined(self, other: Estimate, sign: float, symbol: str) -> Estimate:
        value = self.value + sign * other.value
        replicates, stderr = None, math.nan
        if self.replicates and other.replicates:
            replicates = self.replicates.combine(other.replicates, 1.0, sign)
            stderr = replicates.stderr(value)
        dropped = {
            reason: max(self.dropped.get(reason, 0), other.dropped.get(reason, 0))
            for reason in {**self.dropped, **other.dropped}
        }
        return replace(
            self,
            measure=f"{self.measure} {symbol} {other.measure}",
            value=value,
            stderr=stderr,
            n=min(self.n, other.n),
            n_groups=min(self.n_groups, other.n_groups),
            dropped=dropped,
            options=self.options if self.options == other.options else {},
            parts={},
            replicates=replicates,
        )
