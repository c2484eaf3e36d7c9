"""The faces of selections among the rows of y: the k nearest, and the nearest with its members."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lamina_kernels import checks
from lamina_kernels.gram.distances import Measure, choose, pairs
from lamina_kernels.gram.forms import Impl
from lamina_kernels.gram.pairs import Exclude, Pairs
from lamina_kernels.gram.selection import codes, op, reference
from lamina_kernels.gram.selection.blocked import Found, weighted
from lamina_kernels.gram.sums.api import Precision

MOST = 64
"""The largest k."""


class Nearest(NamedTuple):
    """What `nearest` returns.

    Attributes:
        distances: [n, k], float32 (float64 for float64), ascending; differentiable.
        indices: [n, k] int64, rows of y; those at the same distance ascending.
        zeros: [n] int64, how many of the k are at a distance of exactly 0.
        repaired: A number, int64: how many rows were compared a second time, because products could not decide.
    """

    distances: torch.Tensor
    indices: torch.Tensor
    zeros: torch.Tensor
    repaired: torch.Tensor


class Assigned(NamedTuple):
    """What `argmin` returns.

    Attributes:
        indices: [n] int64, the nearest row of y; the first of several.
        distances: [n], float32 (float64 for float64); differentiable.
        counts: [m] int64, how many rows of x chose each row of y.
        sums: [m, d], float32 (float64 for float64), the sum of these rows of x, differentiable; None if not asked for.
        repaired: As of `Nearest`.
    """

    indices: torch.Tensor
    distances: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor | None
    repaired: torch.Tensor


def nearest(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    k: int = 1,
    *,
    distance: Measure = "squared",
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Nearest:
    """Find the k rows of y that are nearest to each row of x, exactly.

    Products of rows choose candidates, with a bound of their rounding. The candidates' distances are computed from
    differences in float64, and decide; a row whose bounds leave anything open is compared with all that are left.
    So which rows are nearest does not depend on the precision of products, nor on the form.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64; any strides.
        y: [m, d], the same dtype and device; None (or x itself) for x.
        k: How many, from 1 to 64.
        distance: `"squared"`, |x - y|²; `"euclidean"`, its root; `"cosine"`, 1 - <x, y> / |x| |y|, of directions
            rounded to float32 (float64 for float64), 1 for a row of zeros and another row; `"dot"`, -<x, y>, for the
            largest inner products; `"l1"`, the sum of absolute differences.
        exclude: Rows that are not looked at: `"self"`, the row itself; [n] integers, rows of its group, or a pair of
            such tensors if y is not x.
        precision: How float32 is multiplied on tensor cores; forms in plain torch multiply as torch is set to.
        impl: `"reference"` builds all distances and is differentiated by torch; `"blocked"` holds a tile; `"triton"`
            keeps the groups of 8 rows with the smallest bounds, on a GPU (or with `TRITON_INTERPRET=1`), but not for
            float64 and `"l1"`. None takes `"triton"` on a GPU where it can, else `"blocked"`. The logger
            `lamina_kernels` says which ran.

    Returns:
        Distances, indices, and counts of what is worth knowing. Where a row can meet fewer than k, the rest of the
        distances is infinite, with the index -1. A row of y with a NaN or an infinity is never nearest; such a row of x
        has distances NaN and indices -1. The gradient of a distance is 0 where it is infinite, NaN, or (of its root,
        and of `"l1"`) 0.

    Raises:
        ValueError: Shapes, dtypes, devices or groups that do not fit; k below 1, above 64 or above m; numbers above
            1e140.
        NotImplementedError: `impl="triton"` for `"l1"`.
        RuntimeError: `impl="triton"` without a GPU, or without Triton.

    Cost:
        2 n m d operations and two looks at each of the n m products (for `"l1"` 3 n m d operations), 3 n k d operations
        for distances and for each gradient; memory n k and a tile of 1024 x 1024. In plain torch half of the operations
        where y is x, and 8 n (k + 38) bytes for the lists of all rows.

    Example:
        >>> import torch
        >>> found = nearest(torch.tensor([[0.0], [1.0], [3.0]]), None, 2, exclude="self")
        >>> found.distances.tolist(), found.indices.tolist()
        ([[1.0, 9.0], [1.0, 4.0], [4.0, 9.0]], [[1, 2], [0, 2], [1, 0]])
    """
    p = pairs("nearest", x, y, distance, exclude, precision)
    given, k = k, checks.whole(k) or 0
    if not 1 <= k <= MOST:
        raise ValueError(f"nearest: k is {given!r}, expected a whole number from 1 to {MOST}")
    if k > p.m:
        raise ValueError(f"nearest: k is {k}, but y has {p.m} rows")
    found = _find("nearest", p, k, impl)
    zeros = (found.distances == 0).sum(1)
    return Nearest(_told(p, found, distance), found.places, zeros, found.repaired)


def argmin(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    distance: Measure = "squared",
    sums: bool = True,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Assigned:
    """Find the row of y that is nearest to each row of x, and sum the rows of x that chose it.

    An assignment to a codebook; `sums / counts[:, None]` are the means of a step of k-means. The same rows give the
    same bits.

    Args:
        x: As of `nearest`.
        y: [m, d], the codes.
        distance: As of `nearest`.
        sums: Whether to sum the rows of each code.
        precision: As of `nearest`.
        impl: As of `nearest`.

    Returns:
        Indices and distances as of `nearest`, counts and sums. Rows of x that are not finite are no code's.

    Raises:
        ValueError: As of `nearest`; no codes.
        NotImplementedError: As of `nearest`.

    Cost:
        As of `nearest` with k = 1, and n d additions; memory n + m d.

    Example:
        >>> import torch
        >>> found = argmin(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.0], [8.0]]))
        >>> found.indices.tolist(), found.counts.tolist(), found.sums.tolist()
        ([0, 0, 1], [2, 1], [[1.0], [9.0]])
    """
    p = pairs("argmin", x, y, distance, None, precision)
    if p.m == 0:
        raise ValueError("argmin: y has no rows")
    found = _find("argmin", p, 1, impl)
    places = found.places[:, 0]
    return Assigned(
        places,
        _told(p, found, distance)[:, 0],
        codes.counts(places, p.m),
        codes.sums(x, places, p.m) if sums else None,
        found.repaired,
    )


def _find(op_name: str, p: Pairs, k: int, impl: Impl | None) -> Found:
    form = choose(op_name, p, impl)
    return reference.nearest(p, k) if form == "reference" else op.nearest(p, k, form)


def _told(p: Pairs, found: Found, distance: Measure) -> torch.Tensor:
    """Return distances as the face tells them."""
    distances = weighted(p, found.distances)
    if distance == "euclidean":
        zero = distances == 0
        distances = distances.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
    return distances.to(p.dtype)
