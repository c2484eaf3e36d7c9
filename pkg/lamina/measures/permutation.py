"""Permutation tests: whole groups of y are dealt to other groups of x."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lamina.errors import SchemaError
from lamina.measures.estimate import Estimate
from lamina.progress import track
from lamina.rows.aligned import align
from lamina.rows.groups import Groups
from lamina.rows.rows import Rows


@dataclass(frozen=True)
class PermutationTest:
    """How a measure compares with what it gives where x and y have nothing to do with each other.

    Attributes:
        estimate: The measure of the rows as they are.
        p: (b + 1) / (m + 1) for b of m permutations with a value at least as extreme.
        null: float64 [m], the values of the permutations.
        alternative: What counts as extreme.
        seed: What drew the permutations.
    """

    estimate: Estimate
    p: float
    null: np.ndarray
    alternative: str
    seed: int


def permutation_test(
    measure: Callable[..., Estimate],
    x: Any,
    y: Any,
    *,
    seed: int,
    permutations: int = 999,
    alternative: Literal["greater", "less", "two-sided"] = "greater",
    groups: Any = None,
    pair: Literal["order"] | None = None,
    progress: bool = True,
    **options: Any,
) -> PermutationTest:
    """Test whether x and y are independent of each other.

    Under that hypothesis it does not matter which group of y stands beside which group of x. So whole groups of y trade
    places with groups of their size, the rows of a group in their order: rows within a group may depend on each other
    as they like, and p is exact. Moving single rows instead finds similarity where documents have a flavor each.

    Args:
        measure: A measure of two representations, such as `similarity.cka`.
        x: Rows, a tensor or an array.
        y: The same.
        seed: Draws the permutations.
        permutations: How many, m; p is at least 1 / (m + 1).
        alternative: Large values are extreme, small ones, or those far from the middle of the null (then p doubles).
        groups: As the measure takes them.
        pair: As the measure takes it.
        progress: Whether to show a bar on a terminal.
        options: For the measure.

    Raises:
        SchemaError: Rows that do not pair, an iterable, or groups of which too few have the same size.

    Cost: m + 1 times the measure's.

    Example:
        >>> import torch
        >>> from lamina import similarity
        >>> x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
        >>> permutation_test(similarity.cka, x, x[:, :2], seed=0, permutations=19).p
        0.05
    """
    if permutations < 1:
        raise SchemaError(f"permutations={permutations}", hint="give at least 1")
    if alternative not in ("greater", "less", "two-sided"):
        raise SchemaError(f"alternative={alternative!r}", hint="it is 'greater', 'less' or 'two-sided'")
    aligned = align(x, y, groups=groups, pair=pair)
    if not aligned.gathers:
        raise SchemaError("an iterable cannot be read in another order", hint="give a tensor or a stored site")
    first, second = aligned.narrowed()
    labels = aligned.groups.labels.gather(aligned.groups.codes)

    def of(rows: Rows) -> Estimate:
        return measure(first, rows, groups=labels, pair="order", **options)

    estimate = of(second)
    generator = np.random.default_rng(seed)
    moves = _Moves(aligned.groups)
    draws = track(range(permutations), "permutations", progress=progress)
    null = np.array([float(of(second[moves.draw(generator)])) for _ in draws])
    greater = (1 + np.count_nonzero(null >= estimate.value)) / (permutations + 1)
    less = (1 + np.count_nonzero(null <= estimate.value)) / (permutations + 1)
    p = {"greater": greater, "less": less, "two-sided": min(1.0, 2 * min(greater, less))}[alternative]
    return PermutationTest(estimate, float(p), null, alternative, seed)


class _Moves:
    """Draws permutations of rows that move whole groups among those of their size.

    Args:
        groups: The groups, the rows of each one after another.
    """

    def __init__(self, groups: Groups) -> None:
        starts = np.flatnonzero(np.diff(groups.codes, prepend=-1))
        sizes = np.diff(starts, append=groups.codes.size)
        self._starts, self._n = starts, groups.codes.size
        self._alike = [np.flatnonzero(sizes == size) for size in np.unique(sizes)]
        self._sizes = sizes
        ways = sum(math.lgamma(len(alike) + 1) for alike in self._alike)
        if ways < math.log(20):
            raise SchemaError(
                f"{len(sizes)} groups can trade places in {math.exp(ways):.0f} ways, too few for a test",
                hint="groups trade places with groups of their size: choose rows so that sizes are equal",
            )

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """Return the row that comes to each place."""
        rows = np.arange(self._n)
        for alike in self._alike:
            size = int(self._sizes[alike[0]])
            within = np.arange(size)
            taken = generator.permutation(alike)
            rows[self._starts[alike][:, None] + within] = self._starts[taken][:, None] + within
        return rows
