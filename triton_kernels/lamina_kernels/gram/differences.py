"""Second moments of the differences between rows, weighted by kernel values, without a difference of rows."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lamina_kernels.gram.forms import Impl, choose
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.pairs import Exclude, build
from lamina_kernels.gram.sums import op, reference
from lamina_kernels.gram.sums.api import Precision
from lamina_kernels.gram.terms import middle
from lamina_kernels.tiles.rows import tiles

BLOCK = 8192
"""Rows that are multiplied at a time."""


def difference_moments(
    x: Tensor,
    y: Tensor | None = None,
    *,
    kernel: Kernel,
    weights_x: Tensor | None = None,
    weights_y: Tensor | None = None,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> Tensor:
    """Sum the outer products of differences of rows: sum_ij u_i v_j k(x_i, y_j) (x_i - y_j)(x_i - y_j)ᵀ.

    It is the covariance of rows within the reach of a kernel, as averages of outer products of gradients of kernel
    methods need it. Differentiable twice in x, y, the weights and the kernel's hyperparameters. With K of u_i k_ij v_j,
    its row sums r and its column sums c it is Xᵀ diag(r) X - Xᵀ K Y - Yᵀ Kᵀ X + Yᵀ diag(c) Y, with rows moved by the
    mean of y.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64; any strides.
        y: [m, d], the same dtype and device; None (or x itself) for x.
        kernel: A kernel, such as `RBF(1.0)`.
        weights_x: [n], u; None for 1.
        weights_y: [m], v; None for 1.
        exclude: As of `product`.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        [d, d], float32 (float64 for float64), symmetric. Rounded as sums of squares of the rows are that were moved:
        the differences that count should not be much smaller.

    Raises:
        ValueError: As of `product`; weights that do not fit.
        TypeError: As of `product`.
        NotImplementedError: As of `product`.

    Cost:
        One `product` with d + 1 columns, and one with 1 unless x is y and u is v: n m (4 d + 4) operations; then
        4 (n + m) d². Memory O((n + m) d + d²).

    Source:
        Radhakrishnan, Beaglehole, Pandit, Belkin, Mechanism for feature learning in neural networks and
        backpropagation-free machine learning models, 2024, for such averages; the assembly is ours.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import RBF
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> difference_moments(x, kernel=RBF(1.0)).round(decimals=4).tolist()
        [[1.2130999565124512, 0.0], [0.0, 0.0]]
    """
    p = build("difference_moments", x, y, kernel, exclude, precision)
    u, v = (
        _weights("weights_x", weights_x, x, p.dtype),
        _weights("weights_y", weights_y, x if y is None else y, p.dtype),
    )
    form = choose("difference_moments", p, impl)
    summed = reference.sums if form == "reference" else partial(op.sums, name=form)
    shift = middle(x if y is None else y).to(p.dtype)
    rows = x.to(p.dtype) - shift
    others = rows if p.same else (x if y is None else y).to(p.dtype) - shift
    found = summed(p, torch.cat([v, v * others], 1))
    sums, reached = u * found[:, :1], u * found[:, 1:]
    if p.same and weights_x is weights_y:
        of_others = sums
    else:
        of_others = v * summed(p.swapped, u)
    crossed = _across(rows, reached)
    return (_across(rows, sums * rows) + _across(others, of_others * others) - crossed - crossed.T).to(p.dtype)


def _weights(name: str, weights: Tensor | None, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the weights as a column, or raise ValueError."""
    if weights is None:
        return torch.ones(len(rows), 1, dtype=dtype, device=rows.device)
    if weights.shape != rows.shape[:1] or not weights.is_floating_point() or weights.device != rows.device:
        found = f"{weights.dtype} {list(weights.shape)} on {weights.device}"
        raise ValueError(f"difference_moments: {name} is {found}, expected real numbers [{len(rows)}] on {rows.device}")
    return weights.to(dtype)[:, None]


def _across(x: Tensor, y: Tensor) -> Tensor:
    """Return xᵀ y; tiles are added in float64."""
    total = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, device=x.device)
    for rows in tiles(len(x), BLOCK):
        total = total + (x[rows].T @ y[rows]).double()
    return total
