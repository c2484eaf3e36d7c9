from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from lamina.text import cell, number, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (1234.56, "1,235"), (0.00123456, "0.001235"), (99.999, "100"), (-2.5, "-2.5"),
     (1e12, "1.000e+12"), (1e-9, "1.000e-09"), (math.inf, "inf"), (math.nan, "nan")],
)  # fmt: skip
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (999_999, "1 MB"), (5e15, "5 PB")],
)
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert size(count) == text


def test_cells() -> None:
    assert [cell(value) for value in (None, True, 12345, 0.25, "x", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))] == [
        "", "yes", "12,345", "0.25", "x", "2026-01-02 03:04:05"
    ]  # fmt: skip
