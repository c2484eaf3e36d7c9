"""Sums of squares, and of differences, equal those in float64, whatever the tensor."""

from __future__ import annotations

import math

import pytest
import torch

from lamina.errors import SchemaError
from lamina.recording.numbers import squares
from lamina.recording.numbers.squares import plain, sums_of_squares
from tests.faults import broken

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def drawn(size: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return small whole numbers: every sum of their squares is exact."""
    return torch.randint(-8, 9, (size,), generator=torch.Generator().manual_seed(seed)).to(dtype)


# Around 32, 512 and 131,072 the loops begin anew.
SIZES = [0, 1, 7, 31, 32, 33, 511, 512, 513, 1000, 1024, 131_071, 131_072, 131_073, 300_001]


def pairs(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    own, others = ([drawn(size, dtype, seed + first) for seed, size in enumerate(SIZES)] for first in (0, 100))
    return own, others


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_element_counts_once(dtype):
    own, others = pairs(dtype)
    exact = [one.double().square().sum().item() for one in own]
    assert sums_of_squares(own).tolist() == exact
    differences = [
        (one.double() - other.double()).square().sum().item() for one, other in zip(own, others, strict=True)
    ]
    assert sums_of_squares(own, others).tolist() == differences


def test_a_row_that_is_not_whole_would_be_missed():
    with broken("squares_drop_the_last_row"), pytest.raises(AssertionError):
        test_every_element_counts_once(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_device_sums_the_same(dtype, monkeypatch):
    monkeypatch.setattr(squares, "PORTION", 1000)
    own, others = pairs(dtype)
    for minus in (None, others):
        far, near = squares._on_device(own, minus), sums_of_squares(own, minus)
        assert far.dtype == torch.float64
        assert far.tolist() == pytest.approx(near.tolist(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", [5, 514])
def test_every_number_is_widened_as_it_is(dtype, place):
    """Every seventh of the numbers of 16 bits, in a whole row and behind it."""
    every = torch.arange(-(2**15), 2**15, 7, dtype=torch.int32).to(torch.int16).view(dtype)
    # The squares of others are no numbers of float32.
    values = every[(every.double().abs() < 1e19) & (every.double().abs() > 1e-15)]
    own = torch.zeros(len(values), 515, dtype=dtype)
    own[:, place] = values
    others = list(torch.zeros_like(own))
    for found in (sums_of_squares(list(own)), sums_of_squares(others, list(own))):
        torch.testing.assert_close(found, values.double().square(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_number_of_threads_changes_no_bit(dtype):
    own = [torch.randn(size, generator=torch.Generator().manual_seed(size)).to(dtype) for size in (5, 10**6, 400_000)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(sums_of_squares(own).tolist())
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_what_is_subtracted_fits():
    with pytest.raises(SchemaError, match="other sizes"):
        sums_of_squares([torch.zeros(3)], [torch.zeros(4)])


def test_dtypes_are_told_apart_and_the_order_is_kept():
    tensors = [torch.full((size,), 2.0, dtype=dtype) for size in (3, 30) for dtype in DTYPES]
    assert sums_of_squares(tensors).tolist() == pytest.approx([12.0] * 4 + [120.0] * 4)
    assert sums_of_squares([]).tolist() == []
    assert sums_of_squares(tensors).dtype == torch.float64


@pytest.mark.parametrize("size", [1000, 100_000])
def test_half_precision_does_not_overflow(size):
    tensor = torch.full((size,), 3e4, dtype=torch.float16)
    assert sums_of_squares([tensor]).item() == pytest.approx(size * tensor[0].item() ** 2, rel=1e-6)
    assert sums_of_squares([tensor], [-tensor]).item() == pytest.approx(4 * size * tensor[0].item() ** 2, rel=1e-6)


def test_sums_in_half_precision_would_be_seen():
    for size in (1000, 100_000):
        with broken("squares_are_summed_in_the_dtype_of_the_tensor"), pytest.raises(AssertionError):
            test_half_precision_does_not_overflow(size)


def test_large_tensors_lose_no_digits():
    tensor = torch.rand(2**22 + 5, generator=torch.Generator().manual_seed(0))
    assert sums_of_squares([tensor]).item() == pytest.approx(tensor.double().square().sum().item(), rel=2e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [10, 100_000])
def test_nan_and_infinity_show(bad, size, dtype):
    tensor = torch.ones(size, dtype=dtype)
    tensor[size // 2] = bad
    found, wanted = sums_of_squares([tensor]).item(), bad * bad
    assert found == wanted or (math.isnan(found) and math.isnan(wanted))


def test_any_layout_is_plain_and_what_is_dense_is_not_copied():
    x = torch.randn(2, 3, 4, 5)
    dense = [x, x.to(memory_format=torch.channels_last), x.permute(3, 1, 0, 2), x[1]]
    odd = [x[:, :, 1:3, ::2], torch.ones(1).expand(3, 4), torch.tensor(3.0), torch.zeros(0, 4)]
    for one in [*dense, *odd]:
        assert sums_of_squares([plain(one)]).item() == pytest.approx(one.double().square().sum().item())
    for one in dense:
        assert plain(one).data_ptr() == one.data_ptr()


def test_sparse_complex_and_eight_bit_tensors_are_plain():
    values = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 2, 2]]), values, (4, 2), check_invariants=True)
    assert sums_of_squares([plain(sparse)]).item() == 1 + 4 + 64 + 100
    numbers = torch.tensor([3 + 4j, 1j])
    for one in (numbers, numbers.conj()):
        assert sums_of_squares([plain(one)]).item() == pytest.approx(26)
    assert sums_of_squares([plain(torch.tensor([0.5, 2]).to(torch.float8_e4m3fn))]).item() == pytest.approx(4.25)
