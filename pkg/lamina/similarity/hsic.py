"""The Hilbert-Schmidt independence criterion."""

from __future__ import annotations

from typing import Any, Literal

from lamina.measures import Estimate, measure
from lamina.rows.aligned import align


@measure(
    "similarity",
    takes="two rows",
    invariant=["rotation", "permutation", "shift"],
    symmetric=True,
    larger_is_more_similar=True,
    streams=True,
    cost="linear: 6 n d^2, memory d^2; RBF: 4 n^2 d, memory flat",
    source="Gretton, Bousquet, Smola, Schölkopf 2005; Song, Smola, Gretton, Bedo, Borgwardt 2012",
)
def hsic(
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
    """Measure how far two representations of the same examples are from independent of each other.

    With kernel matrices K of the rows of x and L of the rows of y,

        HSIC(x, y) = E[K_12 L_12] - 2 E[K_12 L_13] + E[K_12] E[L_34]

    over rows 1 to 4 drawn independently. With linear kernels it is the squared Frobenius norm of the cross-covariance:
    0 where no feature of x correlates with one of y. With RBF kernels it is 0 if and only if x and y are independent.
    `similarity.cka` divides it by what x and y have with themselves.

    **Invariant** to rotations and reflections, and to shifts, of x and of y apart. With linear kernels it grows with
    the square of either one's scale; with RBF kernels, whose bandwidth follows the rows, it does not see scale.

    **Debiased** (the default): the average over four rows of four distinct groups (`lamina.similarity.independence`),
    whose mean is the truth whatever happens within groups. It may be negative. **Biased** (`debiased=False`): all
    quadruples of rows, repeated ones too, tr(K H L H) / n^2 with H = I - 1/n.

    **Bias**: none. Where the truth is 600, +1.6 (error 2.8), +1.5 (5.9) and +0.1 (4.1) for 30, 60 and 120 documents of
    8 rows (`tests/measures/coverage.md`). An RBF kernel's bandwidth follows the sample, which moves it a little. The
    biased one is too large by about E[K_11 L_11] / n where x and y are independent, and by far more where rows of a
    group are alike.

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
        The estimate, in the square of the features' units of x times that of y, or without one for RBF kernels. Its
        error is found as that of `similarity.cka`; with bandwidths as they are. `parts` has `hsic_xx` and `hsic_yy`
        too, and of the RBF kernel `bandwidth_x` and `bandwidth_y`; `dropped` is as in `similarity.cka`.

    Raises:
        SchemaError: Rows that do not pair, a group without a label, an iterable that divides a group, fewer than four
            groups (one row for the biased), or a representation that does not vary.

    Cost: that of `similarity.cka`.

    Source: Gretton, Bousquet, Smola, Schölkopf, Measuring Statistical Dependence with Hilbert-Schmidt Norms (2005);
        Song, Smola, Gretton, Bedo, Borgwardt, Feature Selection via Dependence Maximization (2012) for the unbiased
        one of independent rows; the sums over distinct groups are ours.

    Example:
        >>> import torch
        >>> from lamina import similarity
        >>> angle = 6.3 * torch.rand(500, generator=torch.Generator().manual_seed(0))
        >>> x, y = angle.cos()[:, None], angle.sin()[:, None]      # they do not correlate, and depend on each other
        >>> linear, rbf = similarity.hsic(x, y), similarity.hsic(x, y, kernel="rbf")
        >>> linear.value < 2 * linear.stderr, rbf.value > 10 * rbf.stderr
        (True, True)
    """
    from lamina.similarity.estimates import of_hsic
    from lamina.similarity.kernelized import hsic_of_rows

    aligned = align(x, y, groups=groups, pair=pair, non_finite=non_finite)
    found = hsic_of_rows(aligned, kernel=kernel, debiased=debiased, bandwidth=bandwidth, seed=seed)
    options: dict[str, Any] = {"kernel": kernel, "debiased": debiased}
    if kernel == "rbf":
        options["bandwidth"] = bandwidth
    return of_hsic(found, options, debiased=debiased, seed=seed if kernel == "rbf" else None)
