"""The rows that Triton kernels of pairs work on."""

from __future__ import annotations

import math

import pytest
import torch

from lamina_kernels.gram import RBF, Kernel, Linear
from lamina_kernels.gram.operands import Base, prepare
from lamina_kernels.gram.pairs import build
from lamina_kernels.tiles.rounding import round_to_tf32
from tests.kernels.hsic_checks import normal


def base(kernel: Kernel, x: torch.Tensor, y: torch.Tensor | None = None, products: str = "bf16x6") -> Base:
    """Return the one base of a kernel."""
    (made,) = prepare(build("test", x, y, kernel), products).bases
    return made


def test_tf32_keeps_eleven_bits_to_the_nearest():
    step = 2.0**-10
    x = torch.tensor([1.0, 1 + 0.4 * step, 1 + 0.6 * step, -1 - 0.6 * step, 2 - 0.4 * step, 0.0, 3e38])
    expected = torch.tensor([1.0, 1.0, 1 + step, -1 - step, 2.0, 0.0, 3e38])
    rounded = round_to_tf32(x)
    assert torch.equal(rounded[:6], expected[:6])
    assert ((rounded - x).abs() <= 2.0**-11 * x.abs()).all()
    assert torch.equal(rounded.view(torch.int32) & 0x1FFF, torch.zeros(7, dtype=torch.int32))


def test_tf32_leaves_what_is_not_finite():
    x = torch.tensor([math.inf, -math.inf, math.nan])
    assert torch.equal(round_to_tf32(x)[:2], x[:2])
    assert round_to_tf32(x)[2].isnan()


def test_norms_belong_to_the_rounded_rows():
    made = base(RBF(0.5), normal(9, 4, seed=0), products="tf32")
    assert made.x_norms is made.y_norms
    assert torch.equal(made.x, round_to_tf32(made.x))
    # Times the weight of the kernel, and log2(e).
    squares = made.x.double().square().sum(1)
    torch.testing.assert_close(made.x_norms.double(), -squares * 2 * math.log2(math.e), rtol=1e-6, atol=0)


def test_float32_rows_are_moved_together_and_half_precision_where_it_rounds_none():
    x, y = normal(9, 4, seed=1) + 50, normal(5, 4, seed=2) + 50
    made = base(RBF(1.0), x, y)
    torch.testing.assert_close(made.y.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.x[0] - made.y[0], x[0] - y[0], rtol=0, atol=1e-5)
    near = torch.tensor([[1.0, 2.0**-14], [3.0, 1.0]]).half()
    made = base(RBF(1.0), near, products="half")
    # Moved by 2 and by (1 + 2^-14) / 2, which would take more digits than there are.
    assert torch.equal(made.x, torch.tensor([[-1.0, 2.0**-14], [1.0, 1.0]]).half())


def test_linear_rows_are_passed_on_as_they_are():
    x = normal(9, 4, seed=3)
    made = base(Linear(), x, x[:5])
    assert made.x.data_ptr() == x.data_ptr()
    assert made.x_norms is None


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (6, 4)])
def test_rows_stand_without_gaps_inside(shape):
    x = normal(shape[1], shape[0], seed=4).T
    made = base(Linear(), x)
    assert made.x.stride(1) == 1 or shape[1] == 1
    assert torch.equal(made.x, x)
