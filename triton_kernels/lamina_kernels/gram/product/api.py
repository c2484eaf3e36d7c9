"""The public face of `linear_product`: checks, the choice of a form, the named result."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from lamina_kernels import checks, dispatch
from lamina_kernels.gram.product import blocked, reference


class LinearProduct(NamedTuple):
    """What `linear_product` returns.

    Attributes:
        value: (X Yᵀ) V, [n, k], in the dtype of X.
        impl: The form that ran: `"reference"` or `"blocked"`.
    """

    value: torch.Tensor
    impl: str


def linear_product(
    x: torch.Tensor,
    v: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    impl: Literal["reference", "blocked"] | None = None,
    block: int = 4096,
) -> LinearProduct:
    """Multiply the linear Gram matrix of two sets of rows with V: (X Yᵀ) V.

    Entry (i, c) of the result is the sum over the rows j of Y of `dot(x_i, y_j) * v_jc`. The n x m matrix
    of dot products is built by the form `reference` alone. Differentiable in all three tensors.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64; any strides.
        v: [m, k], the same dtype and device.
        y: [m, d], the same dtype and device; X itself if None.
        impl: `"reference"` builds the matrix, in the dtype given. `"blocked"` holds a tile of rows at a time
            and sums in float32 (in float64 for float64). None takes `"blocked"`, except in float32 and float64
            where the rows are so few and wide that building the matrix takes fewer operations; it is then
            smaller than the arguments.
        block: Rows a tile of the form `blocked`. It changes memory and rounding, not the result.

    Returns:
        The product, and the name of the form that ran. A sum over no rows is zero.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit each other, an unknown form, or `block` below 1.

    Cost:
        `blocked`: 2 (n + m) d k operations; memory block * (d + k) + d * k numbers beside the result.
        `reference`: 2 n m (d + k) operations and n * m numbers.

    Example:
        >>> import torch
        >>> x = torch.eye(3, dtype=torch.float64)
        >>> result = linear_product(x, torch.arange(6.0, dtype=torch.float64).reshape(3, 2))
        >>> result.value.tolist(), result.impl
        ([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], 'blocked')
    """
    y = x if y is None else y
    _check(x, v, y)
    if block < 1:
        raise ValueError(f"linear_product: block is {block}, a tile holds at least 1 row")
    form = dispatch.choose("linear_product", ("reference", "blocked"), impl, default=_cheapest(x, v))
    if form == "reference":
        return LinearProduct(reference.linear_product(x, v, y), form)
    return LinearProduct(blocked.linear_product(x, v, y, block=block), form)


def _cheapest(x: torch.Tensor, v: torch.Tensor) -> str:
    """Return the form that takes fewer operations, but for half precision the one that sums in float32."""
    (n, d), (m, k) = x.shape, v.shape
    few = n * m * (d + k) < (n + m) * d * k
    return "reference" if few and x.dtype in (torch.float32, torch.float64) else "blocked"


def _check(x: torch.Tensor, v: torch.Tensor, y: torch.Tensor) -> None:
    """Raise ValueError unless (X Yᵀ) V is defined and in one dtype on one device."""
    checks.matrices("linear_product", x=x, v=v, y=y)
    checks.same_width("linear_product", x=x, y=y)
    checks.same_rows("linear_product", v=v, y=y)
