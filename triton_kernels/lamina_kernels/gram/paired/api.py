"""The public face of `hsic_sums`: checks, the choice of a form, the named result."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch

from lamina_kernels import dispatch
from lamina_kernels.gram.forms import is_written
from lamina_kernels.gram.kernels import Kernel, Linear
from lamina_kernels.gram.paired import moments, op, problem, reference
from lamina_kernels.gram.support import NO_FUNCTION
from lamina_kernels.refusals import refuse


class HsicSums(NamedTuple):
    """What `hsic_sums` returns; all tensors are float64, [n], or [n, G] with groups.

    Attributes:
        product: sum_j K_ij L_ij.
        sums_x: sum_j K_ij.
        sums_y: sum_j L_ij.
        square_x: sum_j K_ij².
        square_y: sum_j L_ij².
        n: The number of rows that were summed over, the row itself included.
        impl: The form that ran: `"reference"`, `"blocked"` or `"triton"`.
    """

    product: torch.Tensor
    sums_x: torch.Tensor
    sums_y: torch.Tensor
    square_x: torch.Tensor
    square_y: torch.Tensor
    n: int
    impl: str


def hsic_sums(
    x: torch.Tensor,
    y: torch.Tensor,
    x_other: torch.Tensor | None = None,
    y_other: torch.Tensor | None = None,
    *,
    kernel_x: Kernel = Linear(),  # noqa: B008
    kernel_y: Kernel = Linear(),  # noqa: B008
    groups: torch.Tensor | None = None,
    groups_other: torch.Tensor | None = None,
    precision: Literal["bf16x6", "tf32", "ieee"] | None = None,
    impl: Literal["reference", "blocked", "triton"] | None = None,
) -> HsicSums:
    """Sum two kernel matrices, their product and their squares over rows: what HSIC and CKA are made of.

    K_ij = kernel_x(x_i, x'_j) and L_ij = kernel_y(y_i, y'_j). Without others, x' is x, y' is y, and the diagonals of
    K and L are zero. With others all pairs count: a problem of many rows is cut into diagonal blocks and
    off-diagonal blocks, whose sums add. Neither matrix is built, but for the form `reference`. Differentiable twice in
    all rows and in the kernels' hyperparameters.

    Args:
        x: [n, dx], float16, bfloat16, float32 or float64; any strides.
        y: [n, dy], paired with x row by row; the same dtype and device, like the two that follow.
        x_other: [m, dx], the rows x'; x itself if None.
        y_other: [m, dy], paired with `x_other`; given if and only if that is.
        kernel_x: Any kernel.
        kernel_y: Likewise.
        groups: [n], integers from 0: sum over the rows j of each group apart. Only without others.
        groups_other: [m], likewise, with others.
        precision: How float32 rows are multiplied on tensor cores: `"bf16x6"`, six products of the three bfloat16
            parts of a number; `"tf32"`, with 11 bits of each; `"ieee"`, without rounding, which has no tensor core on
            NVIDIA. None takes `"bf16x6"` on NVIDIA and `"ieee"` on AMD. Forms in plain torch multiply as torch is
            set to. Half precision is multiplied exactly and summed in float32.
        impl: `"reference"` builds the matrices in float32 (in float64 for float64), and sums in float64.
            `"blocked"` holds tiles of scores, in float32 (in float64 for float64), and sums tiles in float64; dot
            products it sums by moments where that takes fewer operations. `"triton"` does the same on a GPU;
            it needs one, unless `TRITON_INTERPRET=1`, and never gives way to another form. None takes
            `"triton"` on a GPU that Triton can use, for less than float64 unless `"blocked"` would take moments, and
            else `"blocked"`.

    Returns:
        The sums, the number of rows summed over, and the name of the form that ran. With groups the sums are
        [n, G], where G is one more than the largest id; the row itself is never in them, its group is.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit each other, others or groups that are incomplete or
            not what they should be, an unknown form or precision, or float64 with `impl="triton"`.
        TypeError: A kernel that is none.
        NotImplementedError: A third derivative, but of `"reference"`, or `impl="triton"` for a `Pointwise` kernel
            without a function.
        RuntimeError: `impl="triton"` without a GPU, or without Triton.

    Cost:
        2 n m (dx + dy) operations and n m exponentials for each RBF kernel, half of both for `"blocked"` on a diagonal
        block; by moments 2 (m + n G) (dx² + dx dy + dy²) operations, and as many for gradients without groups, which
        keep all rows in float64. Other gradients are those of `product` with G columns and the kernels kernel_x *
        kernel_y, kernel_x and so on, of each sum that has one. Memory beside the result: `"blocked"` three tiles of
        512 x 512, or the moments, dx² + dx dy + dy²; `"triton"` n + m numbers, and copies of rows that are sorted by
        group, or float32 under RBF or tf32; `"reference"` 11 n m numbers.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0], [2.0], [3.0]])
        >>> sums = hsic_sums(x, x)
        >>> sums.product.tolist(), sums.sums_x.tolist()
        ([13.0, 40.0, 45.0], [5.0, 8.0, 9.0])
        >>> hsic_sums(x, x, groups=torch.tensor([0, 1, 1])).sums_x.tolist()
        [[0.0, 5.0], [2.0, 6.0], [3.0, 6.0]]
    """
    p = problem.build(x, y, x_other, y_other, kernel_x, kernel_y, groups, groups_other, precision)
    form = dispatch.choose("hsic_sums", ("reference", "blocked", "triton"), impl, default=_default(p))
    if form == "reference":
        return _result(p, reference.hsic_sums(p), "reference")
    if form == "triton":
        dispatch.demand_triton("hsic_sums", p.of_x.x)
        if not all(map(is_written, p.pairs)):
            refuse("hsic_sums", NO_FUNCTION)
    return _result(p, op.hsic_sums(p, form), form)


def _default(p: problem.Problem) -> str:
    """Return the form where none is asked for."""
    x = p.of_x.x
    ready = dispatch.triton_obstacle(x) is None and x.is_cuda and all(map(is_written, p.pairs))
    return "triton" if ready and not moments.cheaper(p) else "blocked"


def _result(p: problem.Problem, sums: Iterable[torch.Tensor], impl: str) -> HsicSums:
    """Name the five sums, without the dimension of the groups if there are none."""
    product, sums_x, sums_y, square_x, square_y = (each if p.groups is not None else each[:, 0] for each in sums)
    return HsicSums(product, sums_x, sums_y, square_x, square_y, p.m, impl)
