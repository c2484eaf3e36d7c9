"""What every measure returns: a value with its error, and all that one needs to know to read it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import polars as pl

from lamina.errors import NotFoundError, SchemaError
from lamina.measures import tidy
from lamina.measures.jackknife import Replicates
from lamina.measures.student import t_quantile


@dataclass(frozen=True, eq=False)
class Estimate:
    """A measure's value, its error bar, and how both came about.

    Estimates on the same examples and groups add, subtract and scale with the right error, because their replicates
    do: `(a - b).stderr` is that of the difference, in which what they share cancels.

    Attributes:
        measure: The measure's name.
        value: The value: a number, or an array whose axes `axes` names.
        stderr: Its standard error, of the same shape; NaN where none can be given.
        unit: The value's unit; "1" for a number without one.
        n: Rows that it stands on.
        n_groups: Groups of rows that are independent of each other.
        dropped: Rows that were left out, by reason.
        estimator: Which estimator it is.
        error: How the standard error was found: a closed form, a delete-a-group jackknife, or weights on whole groups.
        options: The measure's options as they were used.
        dtype: The dtype of the arithmetic.
        seed: The seed of what was drawn at random, or None.
        parts: Values on the way, by name.
        replicates: The value with a bucket of groups left out at a time.
        axes: The labels along each axis of an array, by the axis's name, in order; empty for a number.

    Example:
        >>> whole = Replicates(("a", "b", "c"), (1, 1, 1), (2.5, 2.0, 1.5))
        >>> mean = Estimate("mean", 2.0, whole.stderr(2.0), n=3, n_groups=3, estimator="mean", replicates=whole)
        >>> round(mean.stderr, 4), (mean - mean).stderr
        (0.5774, 0.0)
        >>> pair = Estimate("norm", np.array([1.0, 2.0]), np.array([0.1, 0.2]), axes={"side": ("left", "right")})
        >>> pair.at(side="right").value, pair.to_frame()["part"].to_list()
        (2.0, ['left', 'right'])
    """

    measure: str
    value: Any
    stderr: Any
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
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(len(labels) for labels in self.axes.values())
        for name in ("value", "stderr"):
            given = np.asarray(getattr(self, name), np.float64)
            if given.shape != shape:
                raise SchemaError(f"the {name} of {self.measure} is {list(given.shape)}, its axes are {list(shape)}")
            given.flags.writeable = False
            object.__setattr__(self, name, given if shape else float(given))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Estimate):
            return NotImplemented
        pairs = ((getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment] # it holds dicts

    def __float__(self) -> float:
        if self.axes:
            raise TypeError(f"{self.measure} has axes {', '.join(self.axes)}: at(…) picks a number")
        return self.value

    def __repr__(self) -> str:
        stands = f"({self.estimator}; {self.n} rows in {self.n_groups} groups)"
        if self.axes:
            shape = ", ".join(f"{name}: {len(labels)}" for name, labels in self.axes.items())
            return f"{self.measure}[{shape}] {stands}"
        error = "" if math.isnan(self.stderr) else f" ± {self.stderr:.2g}"
        return f"{self.measure} = {self.value:.4g}{error} {stands}"

    def at(self, **labels: Any) -> Estimate:
        """Return the estimate at these labels: a number if all axes are named, else an array of what is left.

        Args:
            labels: A label by the name of its axis.

        Raises:
            NotFoundError: There is no such axis or label.
        """
        picks: list[Any] = [slice(None)] * len(self.axes)
        for axis, label in labels.items():
            if axis not in self.axes:
                raise NotFoundError(f"{self.measure} has no axis {axis!r}", hint=_axes(self.axes))
            along = list(self.axes[axis])
            if label not in along:
                raise NotFoundError(f"{self.measure} has no {axis} {label!r}", hint=f"there are {along}")
            picks[list(self.axes).index(axis)] = along.index(label)
        left = {name: along for name, along in self.axes.items() if name not in labels}
        pick = tuple(picks)
        replicates = self.replicates and self.replicates.map(lambda values: values[(slice(None), *pick)])
        value, stderr = np.asarray(self.value)[pick], np.asarray(self.stderr)[pick]
        return replace(self, value=value, stderr=stderr, replicates=replicates, axes=left)

    def interval(self, level: float = 0.95) -> tuple[Any, Any]:
        """Return the ends of the confidence interval of Student's t; its degrees of freedom are buckets - 1.

        Args:
            level: The probability that the interval covers the estimator's mean.

        Raises:
            SchemaError: The level is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise SchemaError(f"level={level!r}", hint="give a probability, such as 0.95")
        buckets = len(self.replicates.keys) if self.replicates else self.n_groups
        if buckets < 2:
            return self.value * math.nan, self.value * math.nan
        reach = t_quantile(level, buckets - 1) * self.stderr
        return self.value - reach, self.value + reach

    def to_frame(self) -> pl.DataFrame:
        """Return a row for each number.

        Columns: measure, part ("value", or for arrays the labels, joined by "/"), estimator, options, value, unit,
        stderr, n, n_groups, dropped, seed.
        """
        return tidy.frame_of(self)

    def __add__(self, other: Estimate) -> Estimate:
        return self._combined(other, 1.0, "+") if isinstance(other, Estimate) else NotImplemented

    def __sub__(self, other: Estimate) -> Estimate:
        return self._combined(other, -1.0, "-") if isinstance(other, Estimate) else NotImplemented

    def __mul__(self, factor: float) -> Estimate:
        if not isinstance(factor, (int, float)):
            return NotImplemented
        return replace(
            self,
            measure=f"{factor:g} * {self.measure}",
            value=factor * self.value,
            stderr=abs(factor) * self.stderr,
            parts={},
            replicates=self.replicates and self.replicates.map(lambda values: factor * values),
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        return self * (1 / divisor) if isinstance(divisor, (int, float)) else NotImplemented

    def _combined(self, other: Estimate, sign: float, symbol: str) -> Estimate:
        if {name: list(along) for name, along in self.axes.items()} != {
            name: list(along) for name, along in other.axes.items()
        }:
            raise SchemaError(
                f"{self.measure} and {other.measure} have other axes", hint="at(…) picks what is to be compared"
            )
        value = self.value + sign * other.value
        replicates, stderr = None, value * math.nan
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


def _axes(axes: Mapping[str, Sequence[Any]]) -> str:
    return f"it has {', '.join(axes)}" if axes else "it is a single number: its value"
