"""How far `hsic_sums` may be from the truth: twice as far as plain torch is in the same precision.

The truth is computed in float64 from differences of the rounded rows. Plain torch builds both matrices and sums
them in one dtype. On the CPU that is single precision for all rows, also half: their products are exact in single,
so that nothing else excuses an error.
"""

from __future__ import annotations

import torch

from lamina_kernels.gram import RBF, Linear
from lamina_kernels.gram.kernels import Kernel
from lamina_kernels.tiles.rounding import round_to_tf32
from tests.kernels.hsic_checks import Sums, dense, normal


def plain(x: torch.Tensor, y: torch.Tensor, kernel_x: Kernel, kernel_y: Kernel) -> list[torch.Tensor]:
    """The five sums as anyone would write them, in the dtype of the rows."""

    def matrix(kernel: Kernel, rows: torch.Tensor) -> torch.Tensor:
        products = rows @ rows.T
        if isinstance(kernel, RBF):
            squares = (rows * rows).sum(1)
            distances = (squares[:, None] + squares - 2 * products).clamp(min=0)
            products = torch.exp(-distances / (2 * kernel.bandwidth**2))
        return products.fill_diagonal_(0)

    K, L = matrix(kernel_x, x), matrix(kernel_y, y)
    return [M.sum(1) for M in (K * L, K, L, K * K, L * L)]


def errs_at_most_twice_as_much_as_plain_torch(
    sums: Sums,
    dtype: torch.dtype,
    kernel_x: Kernel,
    kernel_y: Kernel,
    n: int,
    d: int,
    precision: str | None = None,
    like: torch.dtype = torch.float32,
    times: float = 2,
) -> None:
    """The error rule, for the largest error over the rows; in TF32, against rows that were rounded to TF32.

    `like` is the dtype of plain torch, `times` how many times its error is allowed.
    """
    x, y = normal(n, d, seed=30, dtype=dtype), normal(n, d // 2, seed=31, dtype=dtype)
    truth = dense(x, y, kernel_x=kernel_x, kernel_y=kernel_y)
    rounded = (round_to_tf32(x), round_to_tf32(y)) if precision == "tf32" else (x.to(like), y.to(like))
    baseline = plain(*rounded, kernel_x, kernel_y)
    got = sums(x, y, kernel_x=kernel_x, kernel_y=kernel_y, precision=precision)
    for name, value, exact, other in zip(got._fields, got[:5], truth, baseline, strict=False):
        single = exact.to(like)
        atol = 2 * (single + 0.3 - 0.3 - single).abs().max().item()
        error, allowed = (value - exact).abs().max().item(), (other.double() - exact).abs().max().item()
        assert error <= times * allowed + atol, f"{name}: error {error:.3g}, plain torch {allowed:.3g}, ulp {atol:.3g}"


def small_integers_are_exact_in_any_precision(sums: Sums, dtype: torch.dtype, precision: str | None) -> None:
    # At most 3 bits each: no product and no sum of a tile is rounded.
    x, y = (normal(150, d, seed=d, dtype=torch.float64).round().clamp(-4, 4) for d in (40, 7))
    K, L = x @ x.T, y @ y.T
    K.fill_diagonal_(0)
    L.fill_diagonal_(0)
    got = sums(x.to(dtype), y.to(dtype), precision=precision)
    for value, expected in zip(got[:5], [M.sum(1) for M in (K * L, K, L, K * K, L * L)], strict=True):
        assert torch.equal(value, expected)


def sums_of_tiles_are_double(sums: Sums) -> None:
    # Sums of up to 1024 scores fit into 24 bits, that of all does not.
    one, many = torch.tensor([[1 + 2.0**-12]]), torch.ones(4097, 1)
    assert sums(one, one, many, many).sums_x.item() == 4097 * (1 + 2.0**-12)


def far_from_the_origin_distances_keep_their_digits(sums: Sums) -> None:
    # One column has the mean 1000: |x|^2 + |y|^2 - 2 <x, y> would be off by 0.1.
    x, y = normal(150, 6, seed=32), normal(150, 4, seed=33)
    far = x.clone()
    far[:, 2] += 1000
    options = {"kernel_x": RBF(1.0), "kernel_y": Linear()}
    truth = dense(far, y, **options)
    for got, exact in zip(sums(far, y, **options)[:5], truth, strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-4, atol=1e-4)


def addresses_take_64_bits(sums: Sums) -> None:
    # The last of 40 rows starts 2^31 numbers behind the first, and more; memory that nobody touches costs nothing.
    stride = 55_200_000
    far = torch.empty(39 * stride + 8, dtype=torch.float16).as_strided((40, 8), (stride, 1))
    near = normal(40, 8, seed=34, dtype=torch.float16)
    far.copy_(near)
    y = normal(40, 2, seed=35, dtype=torch.float16)
    # Rows of other kernels are moved, and thereby copied.
    got, expected = sums(far, y, kernel_y=RBF(3.0)), sums(near, y, kernel_y=RBF(3.0))
    assert all(torch.equal(a, b) for a, b in zip(got[:5], expected[:5], strict=True))
