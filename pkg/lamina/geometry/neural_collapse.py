"""Neural collapse: how far the last layer's features are from one point a class, at the corners of a simplex."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from lamina.errors import SchemaError
from lamina.geometry.collapse import ClassSums, Scatter, nc1_to_nc3
from lamina.measures import Estimate, Replicates, measure
from lamina.rows.aligned import align
from lamina.rows.centering import center, centered, rows_at_a_time
from lamina.rows.rows import Rows

BUDGET = 2**30
"""Bytes of products that are held at a time."""


@measure(
    "geometry",
    takes="rows and labels",
    invariant=["rotation", "permutation", "scale", "shift"],
    streams=True,
    cost="n d^2 + 2 n d classes, memory 32 d (d + classes) up to 1 GiB",
    catalogue=["S040"],
    source="Papyan, Han, Donoho 2020",
)
def neural_collapse(
    x: Any,
    labels: Any,
    *,
    weights: Any = None,
    bias: Any = None,
    groups: Any = None,
    non_finite: Literal["drop", "refuse"] = "drop",
) -> Estimate:
    """Measure how far features have collapsed to their class means, and those to a simplex (NC1 to NC4).

    With class means m_c, their mean m, the covariance W of rows around their class mean, and the covariance B of the
    class means around m (each class counting alike), C classes:

    - `nc1` = tr(W B^+) / C: variation within classes, in units of that between them. 0 when collapsed.
    - `nc2_norm` = the standard deviation of |m_c - m| over their mean. 0 at a simplex.
    - `nc2_angle` = the mean over pairs of |cos(m_c - m, m_k - m) + 1 / (C - 1)|. 0 at a simplex.
    - `nc3` = |V / |V| - M / |M||, with Frobenius norms, of the classifier's weights V and the centered means M. 0 when
      they are proportional (self-duality); only with `weights`.
    - `nc4` = the part of the rows whose nearest class mean is not what the classifier decides, argmax(V x + b); without
      `weights`, not their label.

    **Invariant**, without weights, to rotations, one scale for all features, and shifts; `nc1` by itself to any
    invertible affine map.

    **Bias**: means of few rows lie apart by chance: |m_c - m|^2 grows by tr(W) / n_c, so that nc1 comes out too small
    and nc2 too large, by the order of tr(W) / (n_c |m_c - m|^2). With three classes of 4 features, 3 and 4 standard
    deviations apart, nc1 (0.347) by -0.0011, -0.0008 and +0.0003 for 600, 1200 and 2400 rows (errors 0.0006, 0.0013,
    0.0009), nc2 and nc4 by less than 0.001 (`tests/measures/coverage.md`).

    Args:
        x: Rows (`run.rows(...)`), a tensor or array [n, d].
        labels: The class of each row: a column's name, or a label for each row.
        weights: The classifier's weights [C, d], in ascending order of the labels.
        bias: Its bias [C].
        groups: What is independent of each other: a column's name, or a label for each row. None takes the column
            `example` where there is one, else each row by itself.
        non_finite: `"drop"` leaves out rows with a NaN or an infinity, and counts them; `"refuse"` raises at the first.

    Returns:
        An array with the axis `metric`: nc1, nc2_norm, nc2_angle, with weights nc3, and nc4. The error is a
        delete-a-group jackknife over the groups, or over 32 buckets of them; of nc4, weights on whole groups with the
        means as they are. It is NaN where all rows of a class lie in one bucket. `dropped` counts rows that are not
        finite.

    Raises:
        SchemaError: An iterable, labels or weights that do not fit, one class or group, or class means that are all
            equal.

    Cost: three passes over the rows, n d^2 + 2 n d C operations; memory 8 d (d + C) bytes a bucket up to 1 GiB, beyond
        that two further passes give the errors. Arithmetic within a block is float32 (float64 for float64 and
        integers), across blocks float64.

    Source: Papyan, Han, Donoho, Prevalence of neural collapse during the terminal phase of deep learning training
        (2020).

    Example:
        >>> import torch
        >>> from lamina import geometry
        >>> labels = torch.arange(300) % 3
        >>> noise = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
        >>> estimate = geometry.neural_collapse(torch.eye(8)[labels] + 0.1 * noise, labels)
        >>> {name: round(estimate.at(metric=name).value, 2) for name in estimate.axes["metric"]}
        {'nc1': 0.02, 'nc2_norm': 0.01, 'nc2_angle': 0.01, 'nc4': 0.0}
    """
    aligned = align(x, x, groups=groups, non_finite=non_finite)
    if not aligned.gathers:
        raise SchemaError("an iterable of rows", hint="give a tensor or a stored site")
    assert isinstance(aligned.x, Rows)
    named = aligned.x.labels(labels)
    aligned, (by, _) = centered(aligned)
    classes = named.gather(aligned.places).rank("dense").to_numpy().astype(np.int64) - 1
    count, d = int(classes.max()) + 1, aligned.x.width
    if count < 2 or not d:
        raise SchemaError(f"{count} class of rows {d} wide", hint="give at least two classes, and a feature")
    if len(aligned.groups) < 2:
        raise SchemaError(f"{len(aligned)} rows in one group", hint="groups= says what is independent")
    classifier = _classifier(weights, bias, by.double(), count)
    buckets, keys = aligned.groups.buckets()

    of_rows = buckets[aligned.groups.codes]
    # sums are read in shorter pieces, products need many rows of each bucket
    large = -(-rows_at_a_time(aligned) // 2)

    def rows(size: int, wanted: range | None = None) -> Iterator[tuple[torch.Tensor, np.ndarray, np.ndarray]]:
        """Rows by bucket, their classes and their buckets; of some buckets, counted from the first of them."""
        every = np.arange(len(aligned))
        if wanted is not None:
            every = every[(of_rows >= wanted.start) & (of_rows < wanted.stop)]
        first = wanted.start if wanted is not None else 0
        for start in range(0, every.size, size):
            here = every[start : start + size]
            if size == large:
                here = here[np.argsort(of_rows[here], kind="stable")]
            yield center(aligned.gather(here).x, by), classes[here], of_rows[here] - first

    sums = ClassSums(len(keys), count, d)
    for block, here, at in rows(large // 2 or 1):
        sums.update(block, here, at)
    means = sums.means()
    if not (means - means[0]).any():
        raise SchemaError("all class means are equal", hint="are all rows equal?")
    scatters, whole = _scattered(partial(rows, large), means, len(keys), classifier)
    weighed = None if classifier is None else classifier[0]
    nothing = torch.zeros_like(means)
    values = [[*nc1_to_nc3(sums.n.sum(0), means, whole, nothing, weighed), 0.0]]
    wrong = torch.zeros(len(keys), dtype=torch.float64)
    for chunk, scatter in scatters:
        wrong[chunk.start : chunk.stop] = scatter.wrong
        for bucket in chunk:
            n = sums.n.sum(0) - sums.n[bucket]
            left = (sums.x.sum(0) - sums.x[bucket]) / n[:, None]
            if (n == 0).any():
                values.append([math.nan] * len(values[0]))
                continue
            products = whole - scatter.product(bucket - chunk.start)
            values.append([*nc1_to_nc3(n, left, products, left - means, weighed), 0.0])
    found = np.array(values)
    sizes = sums.n.sum(1)
    found[0, -1] = wrong.sum() / sizes.sum()
    found[1:, -1] = (wrong.sum() - wrong) / (sizes.sum() - sizes)
    replicates = Replicates.of(keys, sizes.tolist(), found[1:])
    names = ("nc1", "nc2_norm", "nc2_angle", *(["nc3"] if classifier else []), "nc4")
    return Estimate(
        measure="neural_collapse",
        value=found[0],
        stderr=replicates.stderr(found[0]),
        n=len(aligned),
        n_groups=len(aligned.groups),
        dropped=aligned.dropped,
        estimator="means and covariances of the rows",
        error="delete-a-group jackknife; of nc4, weights on whole groups",
        options={"classes": count, "weights": weights is not None, "bias": bias is not None},
        dtype=str(by.dtype).removeprefix("torch."),
        replicates=replicates,
        axes={"metric": names},
    )


def _classifier(weights: Any, bias: Any, by: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return weights, and the bias that features need from which `by` was subtracted."""
    if weights is None:
        if bias is not None:
            raise SchemaError("bias= without weights=", hint="give both, or neither")
        return None
    given = Rows.of(weights).gather(slice(None)).double()
    if tuple(given.shape) != (count, len(by)):
        raise SchemaError(
            f"weights are {list(given.shape)}, there are {count} classes of {len(by)} features",
            hint="a row for each class that occurs in labels, in ascending order",
        )
    shift = torch.zeros(count).double() if bias is None else torch.as_tensor(bias).detach().cpu().double().flatten()
    if len(shift) != count:
        raise SchemaError(f"bias has {len(shift)} numbers, there are {count} classes")
    return given, shift + given @ by


def _scattered(
    rows: Callable[..., Iterator[tuple[torch.Tensor, np.ndarray, np.ndarray]]],
    means: torch.Tensor,
    count: int,
    classifier: tuple[torch.Tensor, torch.Tensor] | None,
) -> tuple[Iterator[tuple[range, Scatter]], torch.Tensor]:
    """Return products by bucket, as many buckets at a time as there is room for, and those of all rows."""
    fit = max(BUDGET // (8 * means.shape[1] ** 2), 1)

    def read(wanted: range | None, as_one: bool = False) -> Scatter:
        size = 1 if as_one else len(wanted or range(count))
        scatter = Scatter(means, size, classifier)
        for block, classes, buckets in rows(wanted):
            scatter.update(block, classes, buckets * 0 if as_one else buckets)
        return scatter

    if count <= fit:
        every = read(None)
        return iter([(range(count), every)]), every.product()
    chunks = (range(first, min(first + fit, count)) for first in range(0, count, fit))
    return ((chunk, read(chunk)) for chunk in chunks), read(None, as_one=True).product()
