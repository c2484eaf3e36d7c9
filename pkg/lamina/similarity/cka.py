"""Centered kernel alignment."""

from __future__ import annotations

from typing import Any, Literal

from lamina.measures import Estimate, Grid, measure
from lamina.rows.aligned import align
from lamina.similarity.grid import compute
from lamina.similarity.planning import plan


@measure(
    "similarity",
    takes="two rows",
    invariant=["rotation", "permutation", "scale", "shift"],
    symmetric=True,
    larger_is_more_similar=True,
    streams=True,
    grid=Grid(compute, plan),
    cost="linear: 6 n d^2, memory d^2; RBF: 4 n^2 d, memory flat",
    catalogue=["S020", "S154"],
    source="Kornblith, Norouzi, Lee, Hinton 2019",
)
def cka(
    x: Any,
    y: Any,
    *,
    kernel: Literal["linear", "rbf"] = "linear",
    debiased: bool = True,
    groups: Any = None,
    pair: Literal["order"] | None = None,
    non_finite: Literal["drop", "refuse"] = "drop",
    bandwidth: float = 1.0,
    seed: int = 0,
) -> Estimate:
    """Compare two representations of the same examples by centered kernel alignment.

    With kernel matrices K of the rows of x and L of the rows of y,

        CKA(x, y) = HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)),

    1 where the kernels agree up to scale, 0 where the representations are independent. With linear kernels it is the
    squared Frobenius norm of the cross-covariance over those of the two covariances.

    **Invariant** to rotations and reflections, to one scale for all features, and to shifts, of x and of y apart. Not
    invariant to a scale for each feature, nor to other linear maps.

    **Debiased** (the default): each HSIC is the average over four rows of four distinct groups
    (`lamina.similarity.independence`), whose mean is the truth whatever happens within groups. It may be negative where
    the truth is near 0, and above 1 near 1. **Biased** (`debiased=False`): all pairs of rows, repeated ones too, to
    compare with what others have published.

    **Bias**: of the debiased ratio, of the order of 1 / groups: where the truth is 0.826, -0.0027, -0.0015 and -0.0009
    for 30, 60 and 120 documents of 8 rows; where it is 0, none beyond 0.001 (`tests/measures/coverage.md`). The biased
    one grows with d / n towards 1 even for independent data.

    Rows of one group are not independent of each other. Taking them for independent turns a document's own flavor
    into similarity: two independent representations of 20 documents with 100 tokens each then get a CKA of 0.28, with
    an error bar of 0.004.

    Args:
        x: Rows (`run.rows(...)`), a tensor or array [n, dx], or an iterable of blocks [k, dx] that can be read again
            and again; float64, float32, float16, bfloat16, or integers.
        y: The same, [n, dy].
        kernel: `"linear"`, or `"rbf"`: exp(-|a - b|^2 / 2 b^2).
        debiased: See above.
        groups: What is independent of each other: a metadata column's name, or a label for each row of x. None takes
            the column `example` where there is one, else each row by itself.
        pair: Stored rows pair by row, or across steps and runs by (example, position); all others by order.
            `"order"` pairs stored rows by order too.
        non_finite: `"drop"` leaves out rows with a NaN or an infinity, and counts them; `"refuse"` raises at the first.
        bandwidth: b of the RBF kernel as a multiple of the median distance between rows, for x and y apart.
        seed: Draws the up to 1,000 rows whose distances have that median.

    Returns:
        The estimate. Its error is a delete-a-group jackknife over the groups, or over 32 buckets of them; of the
        debiased one less what that counts twice near independence (`lamina.similarity.degenerate`), and the replicates
        are drawn in to that error. `parts` has `hsic_xy`, `hsic_xx` and `hsic_yy`, of the RBF kernel also
        `bandwidth_x` and `bandwidth_y` in the features' units; `dropped` counts rows that did not pair (`unpaired_x`,
        `unpaired_y`) and rows with a NaN or an infinity in x or y (`non_finite`).

    Raises:
        SchemaError: Rows that do not pair, a group without a label, an iterable that divides a group, fewer than four
            groups (one row for the biased), or a representation that does not vary.

    Cost: linear: two passes over the rows, about 6 n d^2 operations (up to 18 where groups differ in size), and 6 to 15
        d^2 float64 numbers a bucket up to 1 GiB; beyond that a third pass gives the error. With fewer rows than
        features, and for the RBF kernel: about 4 n^2 d operations in n / 4096 passes, memory flat in n. Arithmetic
        within a block is float32 (float64 for float64 and integers), across blocks float64.

    Source: Kornblith, Norouzi, Lee, Hinton, Similarity of Neural Network Representations Revisited (2019); the sums
        over distinct groups are ours.

    Example:
        >>> import torch
        >>> from lamina import similarity
        >>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
        >>> round(similarity.cka(x, 3 * x @ turned + 7).value, 5)
        1.0
    """
    from lamina.similarity.estimates import of_ratio
    from lamina.similarity.kernelized import hsic_of_rows

    aligned = align(x, y, groups=groups, pair=pair, non_finite=non_finite)
    hsic = hsic_of_rows(aligned, kernel=kernel, debiased=debiased, bandwidth=bandwidth, seed=seed)
    options: dict[str, Any] = {"kernel": kernel, "debiased": debiased}
    if kernel == "rbf":
        options["bandwidth"] = bandwidth
    return of_ratio(hsic, options, debiased=debiased, seed=seed if kernel == "rbf" else None)
