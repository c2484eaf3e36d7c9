"""HSIC of x with itself, of y with itself, and of x with y, whole and with each bucket of groups left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.rows.centering import centered, rows_at_a_time
from lamina.rows.groups import BUCKETS
from lamina.similarity.independence import Sums, biased_hsic, debiased_hsic
from lamina.similarity.linear import PAIRS, LinearState
from lamina.similarity.moment_sums import sums_of, whole_sums_of

if TYPE_CHECKING:
    import torch

    from lamina.rows.aligned import Aligned
    from lamina.similarity.moments import Moments

BUDGET = 2**30
"""Bytes of moments that are held at a time."""


@dataclass(frozen=True)
class Hsic:
    """Attributes.

    values: [1 + buckets] by pair: on all rows, and without each bucket.
    keys: What the buckets are called.
    rows: The rows of each bucket.
    pairs: [buckets, buckets] by pair, what pairs of rows from two different buckets add to the mean of K_ij L_ij over
        pairs of rows of distinct groups, K and L those of centered rows; NaN where it is not known.
    bandwidths: Of RBF kernels, in the features' units.
    """

    values: Mapping[str, np.ndarray]
    keys: list[Any]
    rows: list[int]
    n: int
    n_groups: int
    dropped: Mapping[str, int]
    dtype: str
    bandwidths: Mapping[str, float] = field(default_factory=dict)
    pairs: Mapping[str, np.ndarray] | None = None


def prefers_panels(aligned: Aligned) -> bool:
    """Whether kernel values between all rows take fewer operations than moments of all features."""
    if not aligned.gathers:
        return False
    n, dx, dy = len(aligned), aligned.x.width, aligned.y.width
    products = dx * dx + dy * dy + dx * dy
    # the moments of each bucket are passed over several times, at the time of some 500 operations a number in all
    return n * n * (dx + dy) < n * products + 500 * min(len(aligned.groups), BUCKETS) * products


def hsic_linear(aligned: Aligned, *, debiased: bool) -> Hsic:
    """HSIC with linear kernels, from moments."""
    aligned, centers = centered(aligned)
    buckets, keys = aligned.groups.buckets()
    sizes, count = aligned.groups.sizes, len(keys)
    each = max(LinearState.bytes_of((len(centers[0]), len(centers[1])), sizes), 1)
    fit = BUDGET // each

    def read(wanted: range | None) -> LinearState:
        """Read the rows of some buckets, or of all as one."""
        local = np.zeros_like(buckets) if wanted is None else buckets - wanted.start
        state = LinearState(centers, sizes, local, 1 if wanted is None else len(wanted))
        some = wanted is not None and len(wanted) < count
        inside = (local >= 0) & (local < len(wanted)) if some and wanted is not None else None
        for block in aligned.blocks(rows_at_a_time(aligned), inside):
            state.update(block)
        return state

    if count < fit:
        every = read(range(count))
        whole = {pair: moments.total() for pair, moments in every.moments.items()}
        parts = [(every, range(count))]
    else:
        # the whole first; then as many buckets at a time as there is room for, each from its own rows
        whole = read(None).moments
        step = max(fit - 1, 1)
        chunks = [range(first, min(first + step, count)) for first in range(0, count, step)]
        parts = ((read(chunk), chunk) for chunk in chunks)
    together = max(1, BUDGET // 8 // each)
    rows = np.zeros((1 + count, 4))
    sums = {pair: [_sums(whole[pair], debiased)] for pair in PAIRS}
    products = {pair: np.full((count, count), np.nan) for pair in PAIRS}
    for state, chunk in parts:
        rows[1 + chunk.start : 1 + chunk.stop] = state.rows
        for pair, matrix in products.items():
            matrix[chunk.start : chunk.stop, chunk.start : chunk.stop] = state.products(pair)
        for first in range(0, len(chunk), together):
            for pair in PAIRS:
                left = whole[pair].without(state.moments[pair], slice(first, first + together))
                sums[pair].append(_sums(left, debiased))
    values = {pair: hsic_of(Sums.join(found), rows, debiased) for pair, found in sums.items()}
    return result_of(aligned, values, keys, rows, centers[0].dtype, pairs=products if debiased else None)


def _sums(moments: Moments, debiased: bool) -> Sums:
    return sums_of(moments) if debiased else whole_sums_of(moments)


def hsic_of(sums: Sums, rows: np.ndarray, debiased: bool) -> np.ndarray:
    """Return HSIC on all rows and without each bucket, [1 + buckets], from the sums and the power sums of each."""
    whole = rows.sum(0)
    sizes = np.concatenate([whole[None], whole - rows[1:]]).T
    return debiased_hsic(sums, sizes) if debiased else biased_hsic(sums, sizes)


def result_of(
    aligned: Aligned,
    values: Mapping[str, np.ndarray],
    keys: list[Any],
    rows: np.ndarray,
    dtype: torch.dtype,
    bandwidths: Mapping[str, float] | None = None,
    pairs: Mapping[str, np.ndarray] | None = None,
) -> Hsic:
    """Put together what both ways of computing HSIC return; `pairs` are sums over pairs of rows."""
    held = rows[1:, 0].astype(int).tolist()
    n, n_groups = len(aligned), len(aligned.groups)
    if pairs is not None:
        each = np.square(rows.sum(0)[0]) - rows.sum(0)[1]
        pairs = {pair: matrix / each for pair, matrix in pairs.items()} if n_groups > 1 else None
    name = str(dtype).removeprefix("torch.")
    return Hsic(values, keys, held, n, n_groups, aligned.dropped, name, bandwidths or {}, pairs)
