"""The k-th largest by histograms of digits, against a sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lamina_kernels.sparse.encoding import radix
from tests.kernels.hsic_checks import normal


def numbers(dtype: torch.dtype) -> dict[str, Tensor]:
    tiny = torch.finfo(dtype).smallest_normal
    drawn = normal(700, seed=0, dtype=dtype)
    return {
        "normal": drawn,
        "many equal": drawn.round(),
        "negative": -drawn.abs(),
        "near each other": 1 + torch.finfo(dtype).eps * torch.arange(50, dtype=dtype).flip(0),
        "of all sizes": torch.tensor([torch.inf, -torch.inf, 0.0, -0.0, tiny, -tiny, tiny / 2, 1e30], dtype=dtype),
        "one": torch.tensor([-3.0], dtype=dtype),
    }


@pytest.mark.parametrize("name", numbers(torch.float32))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_as_a_sort_says(dtype: torch.dtype, name: str) -> None:
    values = numbers(dtype)[name]
    expected = values.sort(descending=True).values
    for k in {1, 2, len(values) // 3, len(values) - 1, len(values)} & set(range(1, len(values) + 1)):
        assert radix.kth_largest(values, k) == expected[k - 1]


def test_a_digit_that_is_not_looked_at_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radix, "DIGIT", 15)
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        test_as_a_sort_says(torch.float32, "near each other")
