"""Intrinsic dimension from the two nearest neighbors."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from lamina.errors import SchemaError
from lamina.measures import Estimate, Replicates, measure
from lamina.rows.aligned import align


@measure(
    "geometry",
    takes="rows",
    invariant=["rotation", "permutation", "scale", "shift"],
    cost="2 queries n d, memory flat",
    catalogue=["S280"],
    source="Facco, d'Errico, Rodriguez, Laio 2017",
)
def twonn(
    x: Any,
    *,
    exclude: Literal["group", "self"] = "group",
    queries: int | None = None,
    groups: Any = None,
    non_finite: Literal["drop", "refuse"] = "drop",
    seed: int = 0,
) -> Estimate:
    """Estimate the intrinsic dimension of a cloud of rows from each row's two nearest neighbors.

    Where the density is nearly constant around a row, the ratio of its second to its first neighbor's distance,
    mu = r2 / r1, has the distribution P(mu > m) = m^-d whatever the density: log mu is exponential with mean 1 / d. So

        d = (m - 1) / sum of log mu over m rows,

    the maximum likelihood with its bias of 1 / m taken away. No line is fitted and no tail is cut.

    **Invariant** to rotations, one scale for all features, and shifts. Not to a scale for each feature, which moves
    neighbors.

    **Bias**: the density is not constant over finite distances. Few rows in many dimensions have neighbors far away,
    at the cloud's edge, and d comes out too small. On a torus of 2 dimensions, which has no edge, +0.011 (error 0.002),
    +0.001 (0.005) and -0.003 (0.004) for 600, 1200 and 2400 rows; in a normal cloud of 6, -0.05 (0.01), -0.03 (0.02)
    and +0.03 (0.01) for 300, 600 and 1200 (`tests/measures/coverage.md`). The interval covers the mean of the
    estimator at this n, not the dimension.

    Args:
        x: Rows (`run.rows(...)`), or a tensor or array [n, d].
        exclude: `"group"` looks for neighbors in other groups: tokens of one text repeat each other, and neighbors
            within a text tell of the text. `"self"` takes any other row.
        queries: How many rows' neighbors are looked for, among all rows; whole groups, drawn by a hash of their labels.
            None takes all rows.
        groups: What is independent of each other: a column's name, or a label for each row. None takes the column
            `example` where there is one, else each row by itself.
        non_finite: `"drop"` leaves out rows with a NaN or an infinity, and counts them; `"refuse"` raises at the first.
        seed: Draws the queries.

    Returns:
        The dimension. `n` counts rows whose ratio is used. The error is a closed form, the sum of the products of
        deviations of log mu over pairs of rows that depend on each other: rows of one group, and rows of which one is
        among the other's two neighbors, as two rows that are each other's nearest share r1. Taking ratios for
        independent gives 0.7 of the error in two dimensions; leaving groups out and looking for neighbors anew gives
        1.6 times the error. The replicates leave out buckets of groups with the neighbors of the others as they are,
        stretched to that error. `dropped` counts rows that are not finite (`non_finite`), and queries that coincide
        with a neighbor (`zero_distance`): their ratio is not defined. `parts` has `ties`, ratios that are exactly 1,
        which rows on a grid have, and `compared_again`, how often a query met a block of rows that single precision
        could not tell apart.

    Raises:
        SchemaError: An iterable, fewer than three rows or groups, rows that are all equal, or an option that does not
            exist.

    Cost: 2 q n d operations for q queries, in float32 (float64 for float64 and integers); distances between near rows
        are computed again from differences in float64. Memory does not hold the rows: some
        250 bytes a row where every row is a group by itself.

    Source: Facco, d'Errico, Rodriguez, Laio, Estimating the intrinsic dimension of datasets by a minimal neighborhood
        information (2017).

    Example:
        >>> import torch
        >>> from lamina import geometry
        >>> plane = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> estimate = geometry.twonn(plane @ torch.randn(2, 30, generator=torch.Generator().manual_seed(1)))
        >>> low, high = estimate.interval()
        >>> bool(1.8 < low < 2 < high < 2.2)
        True
    """
    from lamina.geometry.nearest import nearest
    from lamina.rows.centering import centered
    from lamina.rows.choosing import lots

    if exclude not in ("group", "self"):
        raise SchemaError(f"exclude={exclude!r}", hint="it is 'group' or 'self'")
    if queries is not None and queries < 2:
        raise SchemaError(f"queries={queries}", hint="give at least 2, or None for all rows")
    aligned = align(x, x, groups=groups, non_finite=non_finite)
    if not aligned.gathers:
        raise SchemaError("an iterable of rows", hint="give a tensor or a stored site: rows meet all rows")
    aligned, (by, _) = centered(aligned)
    count = len(aligned.groups) if exclude == "group" else len(aligned)
    if count < 3:
        raise SchemaError(
            f"{len(aligned)} rows in {len(aligned.groups)} groups have no two neighbors to choose from",
            hint="give at least three; exclude='self' looks within groups too",
        )
    chosen = np.arange(len(aligned))
    if queries is not None and queries < chosen.size:
        order = np.argsort(lots(aligned.groups, seed), kind="stable")
        fit = max(int(np.searchsorted(np.cumsum(aligned.groups.sizes[order]), queries, side="right")), 1)
        chosen = chosen[np.isin(aligned.groups.codes, order[:fit])]
    found = nearest(aligned, chosen, 2, dtype=by.dtype, within_groups=exclude == "self")
    first, second = found.distances.numpy().T
    apart = (first > 0) & np.isfinite(second)
    dropped = dict(aligned.dropped)
    if zero := int(np.count_nonzero(first == 0)):
        dropped["zero_distance"] = zero
    logs = np.log(second[apart] / first[apart])
    if not logs.sum() > 0:
        raise SchemaError("no row has two neighbors at different distances", hint="are all rows equal, or on a grid?")
    # buckets of the groups that queries come from, so that estimates on the same queries subtract
    groups_of = aligned.groups.take(chosen[apart])
    buckets, keys = groups_of.buckets()
    sums = np.zeros((len(keys), 2))
    np.add.at(sums, buckets[groups_of.codes], np.stack([np.ones_like(logs), logs], 1))
    value, replicates = Replicates.of_sums(keys, sums[:, 0], sums, lambda sums: (sums[:, 0] - 1) / sums[:, 1])
    stderr = _stderr(logs, groups_of.codes, chosen[apart], found.rows.numpy()[apart])
    whole = replicates.stderr(float(value))
    if whole > 0:
        replicates = replicates.map(lambda values: value + stderr / whole * (values - value))
    return Estimate(
        measure="twonn",
        value=value,
        stderr=stderr,
        unit="dimensions",
        n=len(logs),
        n_groups=len(groups_of),
        dropped=dropped,
        estimator="maximum likelihood, unbiased for exponential log ratios",
        error="closed form: rows of a group, and rows that are neighbors, depend on each other",
        options={"exclude": exclude, "queries": queries},
        dtype=str(by.dtype).removeprefix("torch."),
        seed=seed if queries is not None else None,
        parts={"ties": float(np.count_nonzero(logs == 0)), "compared_again": float(found.again)},
        replicates=replicates,
    )


def _stderr(logs: np.ndarray, codes: np.ndarray, rows: np.ndarray, neighbors: np.ndarray) -> float:
    """Return the standard error of the dimension.

    Args:
        logs: log mu of each query.
        codes: Its group's number, 0 to the number of groups - 1.
        rows: Its place among all rows, ascending.
        neighbors: [queries, 2], the places of its two neighbors.
    """
    m, mean = len(logs), logs.mean()
    groups = int(codes.max()) + 1
    if groups < 2:
        return math.nan
    deviations = logs - mean
    within = np.square(np.bincount(codes, deviations)).sum()
    # pairs of queries, each once, of which one is a neighbor of the other
    at = np.minimum(np.searchsorted(rows, neighbors), m - 1)
    known = rows[at] == neighbors
    pairs = np.stack([np.broadcast_to(np.arange(m)[:, None], at.shape)[known], at[known]], 1)
    pairs = np.unique(np.sort(pairs, 1), axis=0)
    pairs = pairs[codes[pairs[:, 0]] != codes[pairs[:, 1]]]
    between = 2 * (deviations[pairs[:, 0]] * deviations[pairs[:, 1]]).sum()
    variance = max(within + between, within / 4) * groups / (groups - 1)
    return float(math.sqrt(variance) / m / mean**2)
