"""The rows that the Triton kernel of `hsic_sums` works on."""

from __future__ import annotations

import math

import pytest
import torch

from lamina_kernels.gram import RBF, Linear
from lamina_kernels.gram.paired.operands import prepare, round_to_tf32
from tests.kernels.hsic_checks import normal


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
    x = normal(9, 4, seed=0)
    made = prepare(RBF(0.5), x, x, "tf32")
    assert made.bias is made.others_bias
    assert made.bias is not None
    assert torch.equal(made.rows, round_to_tf32(made.rows))
    squares = made.rows.double().square().sum(1)
    torch.testing.assert_close(made.bias.double(), -squares * 2 * math.log2(math.e), rtol=1e-6, atol=0)


def test_float32_rows_of_rbf_are_moved_together_and_half_precision_stays():
    x, others = normal(9, 4, seed=1) + 50, normal(5, 4, seed=2) + 50
    made = prepare(RBF(1.0), x, others, "bf16x6")
    torch.testing.assert_close(made.others.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(made.rows[0] - made.others[0], x[0] - others[0], rtol=0, atol=1e-5)
    half = prepare(RBF(1.0), x.half(), others.half(), "half")
    assert torch.equal(half.rows, x.half())


def test_linear_rows_are_passed_on_as_they_are():
    x = normal(9, 4, seed=3)
    made = prepare(Linear(), x, x[:5], "bf16x6")
    assert made.rows is x
    assert made.bias is None
    assert made.scale == 1


@pytest.mark.parametrize("shape", [(6, 1), (1, 6), (6, 4)])
def test_rows_stand_without_gaps_inside(shape):
    x = normal(shape[1], shape[0], seed=4).T
    made = prepare(Linear(), x, x, "bf16x6")
    assert made.rows.stride(1) == 1 or shape[1] == 1
    assert torch.equal(made.rows, x)
