"""Centered kernel alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lamina.errors import SchemaError
from lamina.measures import Estimate, Grid, Replicates, measure
from lamina.rows.aligned import align
from lamina.similarity.grid import compute
from lamina.similarity.planning import plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.similarity.hsic import Hsic


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
        bandwidth: b of the RBF kernel as a multiple of the median distance between rows, for x and y apart.
        seed: Draws the up to 1,000 rows whose distances have that median.

    Returns:
        The estimate. Its error is a delete-a-group jackknife over the groups, or over 32 buckets of them, less what
        that counts twice near independence (`lamina.similarity.degenerate`; debiased linear CKA alone, of others the
        error is up to 1.5 times too large there, as is that of a difference, which the replicates give). `parts` has
        `hsic_xy`, `hsic_xx` and `hsic_yy`, of the RBF kernel also `bandwidth_x` and `bandwidth_y` in the features'
        units; `dropped` counts rows that did not pair (`unpaired_x`, `unpaired_y`) and rows with a NaN or an infinity
        in x or y (`non_finite`).

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
    from lamina.similarity.hsic import hsic_linear, prefers_panels
    from lamina.similarity.kernelized import hsic_panels

    if kernel not in ("linear", "rbf"):
        raise SchemaError(f"kernel={kernel!r}", hint="it is 'linear' or 'rbf'")
    aligned = align(x, y, groups=groups, pair=pair)
    options: dict[str, Any] = {"kernel": kernel, "debiased": debiased}
    if kernel == "linear" and not prefers_panels(aligned):
        hsic = hsic_linear(aligned, debiased=debiased)
    else:
        hsic = hsic_panels(aligned, kernel=kernel, debiased=debiased, bandwidth=bandwidth, seed=seed)
    if kernel == "rbf":
        options["bandwidth"] = bandwidth
    return estimate_of(hsic, options, debiased=debiased, seed=seed if kernel == "rbf" else None)


def estimate_of(hsic: Hsic, options: Mapping[str, Any], *, debiased: bool, seed: int | None = None) -> Estimate:
    """Return the estimate of the ratio.

    Args:
        hsic: HSIC of x with x, y with y, and x with y.
        options: What the estimate tells of how it came about.
        debiased: Which HSIC it is.
        seed: What was drawn with it.

    Raises:
        SchemaError: Too few groups, or a representation that does not vary.
    """
    from lamina.similarity.degenerate import less_counted_twice, ratio_of_pairs

    _check(hsic, debiased)
    values = _ratio(hsic.values)
    whole = Replicates(tuple(hsic.keys), tuple(hsic.rows), tuple(values[1:].tolist()))
    value, error = float(values[0]), "delete-a-group jackknife"
    stderr = whole.stderr(value)
    if hsic.pairs is not None:
        whole_of = {name: float(each[0]) for name, each in hsic.values.items()}
        stderr = less_counted_twice(stderr, ratio_of_pairs(hsic.pairs, whole_of), hsic.rows)
        error += ", pairs counted once"
    return Estimate(
        measure="cka",
        value=value,
        stderr=stderr,
        n=hsic.n,
        n_groups=hsic.n_groups,
        dropped=hsic.dropped,
        estimator="debiased over distinct groups" if debiased else "biased",
        error=error,
        options=options,
        dtype=hsic.dtype,
        seed=seed,
        parts={f"hsic_{name}": float(each[0]) for name, each in hsic.values.items()} | dict(hsic.bandwidths),
        replicates=whole,
    )


def _ratio(values: Mapping[str, np.ndarray]) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return values["xy"] / np.sqrt(values["xx"] * values["yy"])


def _check(hsic: Hsic, debiased: bool) -> None:
    least = 4 if debiased else 1
    if hsic.n_groups < least:
        raise SchemaError(
            f"{hsic.n} rows in {hsic.n_groups} groups",
            hint=f"a {'debiased' if debiased else 'biased'} CKA needs at least {least} group{'s' * (least > 1)}; "
            "groups= says what is independent",
        )
    for side in "xy":
        if not hsic.values[side + side][0] > 0:
            raise SchemaError(
                f"{side} does not vary between groups: HSIC({side}, {side}) is {hsic.values[side + side][0]:.3g}",
                hint="are all rows equal, or are there too few groups?",
            )
