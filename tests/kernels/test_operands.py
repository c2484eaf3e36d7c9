"""The rows that Triton kernels of pairs work on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from lamina_kernels.gram import RBF, Kernel, Linear
from lamina_kernels.gram.base import Base
from lamina_kernels.gram.operands import prepare, products_of
from lamina_kernels.gram.pairs import build
from lamina_kernels.gram.sums import launch
from lamina_kernels.tiles.rounding import parts_of, round_to_tf32, scaled_to_half
from tests.faults import broken
from tests.kernels import gram_kernel_faults  # noqa: F401
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


def parts_are_what_those_before_leave(parts: int) -> None:
    # 24 digits, of all sizes whose parts bfloat16 holds.
    x = normal(400, 19, seed=5) * 2.0 ** (torch.arange(400) % 200 - 100)[:, None]
    made = parts_of(x, parts, 32).view(400, parts, 32)
    assert not made[:, :, 19:].any()
    rest = x.double()
    for part in made[:, :, :19].double().unbind(1):
        rest = rest - part
        # Half of the last of 8 digits: each part is the nearest that there is.
        assert (rest.abs() <= 2.0**-8 * part.abs().clamp(min=2.0**-126)).all()
    assert (rest.abs() <= (0 if parts == 3 else 2.0**-17) * x.abs()).all()


@pytest.mark.parametrize("parts", [2, 3])
def test_parts_are_what_those_before_leave(parts: int):
    parts_are_what_those_before_leave(parts)


@pytest.mark.parametrize("fault", ["gram_kernel_cuts_digits_off"])
def test_parts_that_are_cut_off_are_noticed(fault: str):
    with broken(fault), pytest.raises(AssertionError):
        parts_are_what_those_before_leave(2)


def test_a_broken_row_breaks_no_parts_of_others():
    x = torch.ones(3, 2)
    x[1] = torch.tensor([math.nan, math.inf])
    made = parts_of(x, 2, 2).float()
    assert made.isfinite().all(1).tolist() == [True, False, True]
    assert parts_of(x[:0], 3, 16).shape == (0, 48)
    assert parts_of(x[:, :0], 3, 16).any().item() is False


@pytest.mark.parametrize("together", [False, True])
def test_scaled_rows_keep_eleven_bits_and_lie_high_in_float16(together: bool):
    x = round_to_tf32(normal(300, 19, seed=6) * 2.0 ** (torch.arange(300) % (12 if together else 200) - 100)[:, None])
    half, units = scaled_to_half(x, 32, together=together)
    assert half.dtype == torch.float16
    assert units.shape == (1 if together else 300,)
    assert torch.equal(half[:, :19].float() * units[:, None], x)
    assert not half[:, 19:].any()
    sizes = half.float().abs()
    largest = sizes.amax() if together else sizes.amax(1)
    assert ((largest >= 2.0**14) & (largest <= 2.0**15)).all()


def test_two_parts_of_float16_hold_23_bits():
    x = normal(400, 19, seed=7) * 2.0 ** (torch.arange(400) % 200 - 100)[:, None]
    made, units = scaled_to_half(x, 32, together=False, parts=2)
    parts = made.view(400, 2, 32)[:, :, :19].double() * units[:, None, None]
    assert not made.view(400, 2, 32)[:, :, 19:].any()
    off = (parts.sum(1) - x).abs()
    assert (off <= 2.0**-23 * x.abs() + 2.0**-40 * x.abs().amax(1, keepdim=True)).all()
    assert (parts[:, 1].abs() <= 2.0**-11 * parts[:, 0].abs() + 2.0**-40 * x.abs().amax(1, keepdim=True)).all()


@pytest.mark.parametrize(
    ("target", "width", "precision", "expected"),
    [
        ("cuda:90", 128, None, "bf16x6"),
        ("cuda:90", 128, "fp16x3", "fp16x3"),
        ("cuda:80", 16, "fp16x3", "fp16x3"),
        ("cuda:80", 128, "tf32", "half"),
        # Where parts are made of a tile, or not at all.
        ("cuda:100", 128, "fp16x3", "bf16x6"),
        ("hip:gfx942", 128, None, "ieee"),
        ("hip:gfx942", 128, "fp16x3", "fp16x3"),
    ],
)
def test_how_float32_is_multiplied(target: str, width: int, precision: str | None, expected: str):
    x = torch.ones(3, width)
    p = build("test", x, None, RBF(1.0), None, precision)
    for plan in (launch.sums_plan, launch.softmax_plan):
        given: list[Any] = [p, prepare(p, products_of(p, target)), torch.ones(3, 2), None, target]
        assert plan(*given).arguments["PRECISION"] == expected
    # Gradients take rows as they are.
    assert products_of(p, target) in ("bf16x6", "tf32", "ieee")


def test_what_float32_has_and_float16_has_not():
    x = torch.tensor([[3e38, 1e30], [0.0, 0.0], [1e-38, -1e-45], [math.inf, 1.0], [math.nan, 1.0]])
    half, units = scaled_to_half(x, 2, together=False)
    assert ((units > 0) & (units < math.inf)).all()
    torch.testing.assert_close((half * units[:, None])[:3], x[:3], rtol=2**-11, atol=2e-45)
    assert half[3:].isfinite().all(1).tolist() == [False, False]
    # Broken rows have no say in what others are multiplied with.
    assert scaled_to_half(x[1:], 2, together=True)[1].item() == units[2].item()
    for empty in (x[:0], x[:, :0]):
        half, units = scaled_to_half(empty, 16, together=True)
        assert half.shape == (len(empty), 16)
        assert units.shape == (1,)


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
