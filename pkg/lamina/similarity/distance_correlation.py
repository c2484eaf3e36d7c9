"""Distance correlation."""

from __future__ import annotations

from typing import Any, Literal

from lamina.measures import Estimate, measure
from lamina.rows.aligned import align


@measure(
    "similarity",
    takes="two rows",
    invariant=["rotation", "permutation", "scale", "shift"],
    symmetric=True,
    larger_is_more_similar=True,
    cost="4 n^2 d in float64, memory flat",
    source="Székely, Rizzo 2013",
)
def distance_correlation(
    x: Any,
    y: Any,
    *,
    groups: Any = None,
    pair: Literal["order"] | None = None,
    non_finite: Literal["drop", "refuse"] = "drop",
) -> Estimate:
    """Compare two representations of the same examples by the distances between their rows.

    With the distances D_ij = |x_i - x_j| and E_ij = |y_i - y_j|, the squared distance covariance is

        V(x, y) = E[D_12 E_12] - 2 E[D_12 E_13] + E[D_12] E[E_34]

    over rows 1 to 4 drawn independently, and the value is the squared distance correlation V(x, y) / sqrt(V(x, x)
    V(y, y)): 0 if and only if x and y are independent, 1 if their distances agree up to scale. It is `similarity.cka`
    with the negative distance for a kernel, which has no bandwidth to choose.

    **Invariant** to rotations and reflections, to one scale for all features, and to shifts, of x and of y apart.

    **Unbiased** are the three V: averages over four rows of four distinct groups (`lamina.similarity.independence`),
    whose mean is the truth whatever happens within groups. Where every row is a group they are those of Székely and
    Rizzo. The value may be negative where the truth is 0.

    **Bias**: of the ratio, of the order of 1 / groups: where the truth is 0.570, -0.001 (error 0.002), +0.007 (0.003)
    and +0.003 (0.002) for 100, 200 and 400 rows; where it is 0, none beyond 0.001 (`tests/measures/coverage.md`).

    Args:
        x: Rows (`run.rows(...)`), or a tensor or array [n, dx]; float64, float32, float16, bfloat16, or integers.
        y: The same, [n, dy].
        groups: What is independent of each other: a metadata column's name, or a label for each row of x. None takes
            the column `example` where there is one, else each row by itself.
        pair: Stored rows pair by row, or across steps and runs by (example, position); all others by order.
            `"order"` pairs stored rows by order too.
        non_finite: `"drop"` leaves out rows with a NaN or an infinity, and counts them; `"refuse"` raises at the first.

    Returns:
        The estimate. Its error is a delete-a-group jackknife over the groups, or over 32 buckets of them, less what
        that counts twice near independence (`lamina.similarity.degenerate`). `parts` has `dcov_xy`, `dcov_xx` and
        `dcov_yy`, the three V; `dropped` counts rows that did not pair (`unpaired_x`, `unpaired_y`) and rows with a NaN
        or an infinity in x or y (`non_finite`).

    Raises:
        SchemaError: Rows that do not pair, a group without a label, an iterable, fewer than four groups, or a
            representation that does not vary.

    Cost: about 4 n^2 d operations and 2 n^2 roots in n / 4096 passes over the rows, memory flat in n. All in float64:
        the distance between near rows is a small difference of large numbers.

    Source: Székely, Rizzo, The distance correlation t-test of independence in high dimension (2013); Sejdinovic,
        Sriperumbudur, Gretton, Fukumizu, Equivalence of distance-based and RKHS-based statistics in hypothesis testing
        (2013); the sums over distinct groups are ours.

    Example:
        >>> import torch
        >>> from lamina import similarity
        >>> angle = 6.3 * torch.rand(500, generator=torch.Generator().manual_seed(0))
        >>> estimate = similarity.distance_correlation(angle.cos()[:, None], angle.sin()[:, None])
        >>> estimate.value > 10 * estimate.stderr      # they do not correlate, and depend on each other
        True
    """
    from lamina.similarity.estimates import of_ratio
    from lamina.similarity.kernelized import hsic_panels

    found = hsic_panels(align(x, y, groups=groups, pair=pair, non_finite=non_finite), kernel="distance", debiased=True)
    return of_ratio(found, {}, measure="distance_correlation", part="dcov")
