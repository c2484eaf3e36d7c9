"""The faces of sums over the rows of y: kernel values times V, their sums, and means under their softmax."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from lamina_kernels import checks
from lamina_kernels.gram.forms import Impl, choose
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.gram.pairs import Exclude, Pairs, build
from lamina_kernels.gram.sums import linear, op, reference

Precision = Literal["bf16x6", "fp16x3", "bf16x3", "tf32", "ieee"]


class SoftmaxProduct(NamedTuple):
    """What `softmax_product` returns.

    Attributes:
        value: [n, width of v], in the dtype of v: the mean of the rows of v under the softmax of row i.
        logsumexp: [n], float32 (float64 for float64): the logarithm of what the weights were divided by.
    """

    value: torch.Tensor
    logsumexp: torch.Tensor


def product(
    x: torch.Tensor,
    y: torch.Tensor | None,
    v: torch.Tensor,
    *,
    kernel: Kernel,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> torch.Tensor:
    """Multiply the matrix of kernel values with V: out_i = sum_j k(x_i, y_j) v_j.

    Differentiable twice in x, y, v and the kernel's hyperparameters. A linear kernel is multiplied as X (Yᵀ V) where
    that takes fewer operations.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64; any strides.
        y: [m, d], the same dtype and device; None (or x itself) for x.
        v: [m, k], likewise.
        kernel: A kernel, such as `RBF(1.0)` or `Linear() + RBF(1.0) * Cosine()`.
        exclude: Pairs that do not count: `"self"`, a row with itself; [n] integers, pairs of rows of one group, or a
            pair of such tensors if y is not x.
        precision: How float32 is multiplied on tensor cores, see docs/gram.md; None for accurately. Forms in plain
            torch multiply as torch is set to.
        impl: `"reference"` builds the matrix and is differentiable as often as asked; `"blocked"` holds a tile;
            `"triton"` needs a GPU (or `TRITON_INTERPRET=1`), and never gives way to another form. None takes `"triton"`
            on a GPU, for less than float64, and else `"blocked"`. The logger `lamina_kernels` says which ran.

    Returns:
        [n, k], in the dtype of x. A sum over no pairs is 0.

    Raises:
        ValueError: Shapes, dtypes, devices, groups or hyperparameters that do not fit.
        TypeError: A kernel that is none.
        RuntimeError: `impl="triton"` without a GPU, or without Triton.
        NotImplementedError: Gradients of a third order, but from `"reference"`.

    Cost:
        2 n m (d + k) operations and n m values of the kernel, half of them by `"blocked"` if y is x. Backward as much
        for v, and for the rows of each side 2 n m (2 d + k); if y is x, its two sides are one. What has no gradients is
        not computed; docs/gram.md counts how often values are made. Memory O((n + m)(d + k));
        `"triton"` holds the parts of float32 rows too, 4 or 6 bytes a number.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import RBF
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> product(x, None, torch.eye(2), kernel=RBF(1.0)).round(decimals=4).tolist()
        [[1.0, 0.6065000295639038], [0.6065000295639038, 1.0]]
    """
    p = build("product", x, y, kernel, exclude, precision)
    _check_columns("product", p, x, v)
    return _sums("product", p, v, impl).to(x.dtype)


def row_sums(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    kernel: Kernel,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> torch.Tensor:
    """Sum the matrix of kernel values over its columns: out_i = sum_j k(x_i, y_j).

    Divided by m it is the mean embedding of y at x_i; with a normalized kernel, a kernel density.

    Args:
        x: As of `product`.
        y: As of `product`.
        kernel: As of `product`.
        exclude: As of `product`.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        [n], float32 (float64 for float64).

    Raises:
        ValueError: As of `product`.
        TypeError: As of `product`.
        NotImplementedError: As of `product`.

    Cost:
        2 n m d operations and n m values of the kernel, and twice as many operations backward for each side; memory
        O((n + m) d).

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import RBF
        >>> row_sums(torch.tensor([[0.0], [1.0]]), kernel=RBF(1.0), exclude="self").round(decimals=4).tolist()
        [0.6065000295639038, 0.6065000295639038]
    """
    p = build("row_sums", x, y, kernel, exclude, precision)
    ones = torch.ones(p.m, 1, dtype=p.dtype, device=x.device)
    return _sums("row_sums", p, ones, impl)[:, 0].to(p.dtype)


def logsumexp(
    x: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    kernel: Kernel,
    log_weights: torch.Tensor | None = None,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> torch.Tensor:
    """Return log sum_j w_j exp(k(x_i, y_j)), without overflow.

    With `SquaredDistance(b)` it is the logarithm of a Gaussian kernel density but for a constant, and half a step of
    Sinkhorn's algorithm; with `Linear()`, the denominator of attention.

    Args:
        x: As of `product`.
        y: As of `product`.
        kernel: As of `product`.
        log_weights: [m], log w_j, differentiable; None for w_j = 1.
        exclude: As of `product`.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        [n], float32 (float64 for float64); -inf for a row that has no pair.

    Raises:
        ValueError: As of `product`.
        TypeError: As of `product`.
        NotImplementedError: As of `product`.

    Cost:
        As of `row_sums`, and n m exponentials.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import Linear
        >>> logsumexp(torch.tensor([[1000.0]]), torch.ones(4, 1), kernel=Linear()).round(decimals=2).item()
        1001.3900146484375
    """
    p = build("logsumexp", x, y, kernel, exclude, precision)
    _check_log_weights("logsumexp", p, log_weights)
    return _softmax("logsumexp", p, torch.empty(p.m, 0, dtype=p.dtype, device=x.device), log_weights, impl)[1]


def softmax_product(
    x: torch.Tensor,
    y: torch.Tensor | None,
    v: torch.Tensor,
    *,
    kernel: Kernel,
    log_weights: torch.Tensor | None = None,
    exclude: Exclude | None = None,
    precision: Precision | None = None,
    impl: Impl | None = None,
) -> SoftmaxProduct:
    """Average V under the softmax of kernel values: out_i = sum_j p_ij v_j, p_ij in proportion to w_j exp(k(x_i, y_j)).

    With `SquaredDistance(b)` it is the regression of Nadaraya and Watson, or a step of mean shift (v = y); with
    `Linear()`, attention of one head, or a step of a Hopfield network.

    Args:
        x: As of `product`.
        y: As of `product`.
        v: As of `product`.
        kernel: As of `product`.
        log_weights: As of `logsumexp`.
        exclude: As of `product`.
        precision: As of `product`.
        impl: As of `product`.

    Returns:
        The means, 0 for a row that has no pair, and the log-sum-exp.

    Raises:
        ValueError: As of `product`.
        TypeError: As of `product`.
        NotImplementedError: As of `product`.

    Cost:
        As of `product`, and n m exponentials.

    Source:
        The online softmax of Milakov and Gimelshein, 2018.

    Example:
        >>> import torch
        >>> from lamina_kernels.gram import SquaredDistance
        >>> y = torch.tensor([[0.0], [2.0]])
        >>> softmax_product(torch.ones(1, 1), y, y, kernel=SquaredDistance(0.5)).value.tolist()
        [[1.0]]
    """
    p = build("softmax_product", x, y, kernel, exclude, precision)
    _check_columns("softmax_product", p, x, v)
    _check_log_weights("softmax_product", p, log_weights)
    value, lse = _softmax("softmax_product", p, v, log_weights, impl)
    return SoftmaxProduct(value.to(v.dtype), lse)


def _sums(name: str, p: Pairs, v: torch.Tensor, impl: Impl | None) -> torch.Tensor:
    form = choose(name, p, impl, triton=not linear.cheaper(p, v))
    if form == "reference":
        return reference.sums(p, v)
    return linear.product(p, v) if form == "blocked" and linear.cheaper(p, v) else op.sums(p, v, form)


def _softmax(
    name: str, p: Pairs, v: torch.Tensor, log_weights: torch.Tensor | None, impl: Impl | None
) -> tuple[torch.Tensor, torch.Tensor]:
    form = choose(name, p, impl)
    return reference.softmax(p, v, log_weights) if form == "reference" else op.softmax(p, v, log_weights, form)


def _check_columns(name: str, p: Pairs, x: torch.Tensor, v: torch.Tensor) -> None:
    checks.matrices(name, x=x, v=v)
    if v.shape[0] != p.m:
        raise ValueError(f"{name}: v has {v.shape[0]} rows and y has {p.m}, they must agree")


def _check_log_weights(name: str, p: Pairs, log_weights: torch.Tensor | None) -> None:
    if log_weights is None:
        return
    if log_weights.shape != (p.m,) or not log_weights.is_floating_point() or log_weights.device != p.x.device:
        found = f"{log_weights.dtype} {list(log_weights.shape)} on {log_weights.device}"
        raise ValueError(f"{name}: log_weights is {found}, expected real numbers [{p.m}] on {p.x.device}")
