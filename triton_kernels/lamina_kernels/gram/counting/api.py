"""The faces of counts: rows within a radius, and a histogram of distances."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lamina_kernels.gram.counting import op, reference
from lamina_kernels.gram.counting.thresholds import thresholds
from lamina_kernels.gram.distances import Measure, choose, pairs
from lamina_kernels.gram.forms import Impl
from lamina_kernels.gram.pairs import Exclude
from lamina_kernels.gram.sums.api import Precision


def count(
    x: torch.Tensor,
    y: torch.Tensor | None,
    radius: float | torch.Tensor,
    *,
    distance: Measure = "euclidean",
    strict: bool = False,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> torch.Tensor:
    """Count the rows of y within a radius of each row of x, exactly.

    Products of rows decide, but where their rounding leaves a pair open: that is compared by differences in float64.

    Args:
        x: As of `nearest`.
        y: As of `nearest`.
        radius: A number, or [n], one a row; in units of `distance`.
        distance: As of `nearest`.
        strict: Whether a row at exactly the radius is left out.
        exclude: As of `nearest`.
        precision: As of `nearest`.
        impl: As of `nearest`; `"triton"` measures pairs that bounds leave open inside the kernel.

    Returns:
        [n] int64. Rows that are not finite are near nothing: they count 0, and are not counted.

    Raises:
        ValueError: As of `nearest`; a radius of another shape, that is NaN, or below 0 (but for `"dot"`).
        NotImplementedError: `impl="triton"` for `"l1"`.

    Cost:
        2 n m d operations and five looks at each of the n m products; memory n and tiles of 1024 x 512.

    Example:
        >>> import torch
        >>> line = torch.arange(5.0)[:, None]
        >>> count(line, None, 1.0).tolist(), count(line, None, 1.0, strict=True).tolist()
        ([2, 3, 3, 3, 2], [1, 1, 1, 1, 1])
    """
    p = pairs("count", x, y, distance, exclude, precision)
    radii = torch.as_tensor(radius, dtype=torch.float64, device=x.device)
    if radii.ndim > 1 or (radii.ndim == 1 and radii.shape != (p.n,)):
        raise ValueError(f"count: radius has shape {list(radii.shape)}, expected one number, or [{p.n}], one a row")
    _check("count: radius", radii, distance)
    form, within = choose("count", p, impl), thresholds(p, radii.expand(p.n), distance, strict=strict)
    return reference.count(p, within) if form == "reference" else op.count(p, within, form)


def distance_histogram(
    x: torch.Tensor,
    y: torch.Tensor | None,
    edges: Sequence[float] | torch.Tensor,
    *,
    distance: Measure = "euclidean",
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> torch.Tensor:
    """Count the pairs of a row of x and a row of y by their distance, exactly.

    Args:
        x: As of `nearest`.
        y: As of `nearest`.
        edges: At least two numbers, rising, in units of `distance`: a bin is from its edge, which is in it, to the
            next, which is not; but the last edge is in the last bin, as in NumPy.
        distance: As of `nearest`.
        exclude: As of `nearest`.
        precision: As of `nearest`.
        impl: As of `nearest`; `"triton"` measures pairs that bounds leave open inside the kernel.

    Returns:
        [edges - 1] int64. Each ordered pair counts, also that of a row and itself unless `exclude` says so. Pairs
        with rows that are not finite, or beyond the edges, are in no bin.

    Raises:
        ValueError: As of `nearest`; edges that do not rise, or fewer than two.
        NotImplementedError: `impl="triton"` for `"l1"`.

    Cost:
        2 n m d operations and two searches among the edges for each of the n m products (`"triton"` compares each with
        all edges); memory as of `count`.

    Example:
        >>> import torch
        >>> distance_histogram(torch.arange(5.0)[:, None], None, [0, 1, 2, 4], exclude="self").tolist()
        [0, 8, 12]
    """
    p = pairs("distance_histogram", x, y, distance, exclude, precision)
    values = torch.as_tensor(edges, dtype=torch.float64, device=x.device)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"distance_histogram: edges have shape {list(values.shape)}, expected at least two numbers")
    if not torch.compiler.is_compiling() and not bool((values.diff() > 0).all()):
        raise ValueError("distance_histogram: edges do not rise")
    form, bins = choose("distance_histogram", p, impl), thresholds(p, values, distance)
    return reference.histogram(p, bins) if form == "reference" else op.histogram(p, bins, form)


def _check(name: str, values: torch.Tensor, distance: Measure) -> None:
    """Raise ValueError for numbers that are no distance, where looking is cheap."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        return
    bad = values[values.isnan() | ((values < 0) if distance != "dot" else False)]
    if bad.numel():
        raise ValueError(f"{name} is {bad.flatten()[0].item()}, expected a number from 0")
