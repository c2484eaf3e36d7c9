"""Values that differ have different hashes, those that are equal have the same."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from lamina.sweeps.canonical import NotCanonicalError, digest


@dataclass
class Point:
    x: Any
    y: Any


class Color(Enum):
    RED = 1
    BLUE = 2


DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 1.0, -1.0, 0.0, -0.0, float("inf"), 1j, "", "1", "None", b"", b"1", Path("1"), ...,
    [], [1], [[1]], [1, 2], [2, 1], (1, 2), {1, 2}, frozenset({1, 2}), {}, {1: 2}, {2: 1}, {"1": 2}, slice(1), range(1),
    np.array(1), np.array([1]), np.array([[1]]), np.array([1.0]), np.array([1], np.int8), np.float32(1),
    torch.tensor(1), torch.tensor([1]), torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.bfloat16), torch.zeros(0),
    torch.zeros(0, 2), torch.float32, torch.float64, torch.device("cpu"), pl.Series([1]), pl.Series("a", [1]),
    pl.Series([1.0]), pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [None]}), pl.col("a"), pl.col("a") > 1,
    Point(1, 2), Point(2, 1), Color.RED, Color.BLUE, ["a", "bc"], ["ab", "c"], [["a"], "b"], [["a", "b"]],
]  # fmt: skip


def test_what_differs_is_told_apart() -> None:
    for one, other in itertools.combinations(DIFFERENT, 2):
        assert digest(one) != digest(other), (one, other)


def test_what_is_equal_is_not() -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert digest({"a": 1, "b": x}) == digest({"b": x.clone(), "a": 1})
    assert digest(x[:, ::2]) == digest(x[:, ::2].contiguous())
    assert digest(x.requires_grad_()) == digest(x.detach())
    assert digest({f"name {i}" for i in range(50)}) == digest({f"name {i}" for i in reversed(range(50))})
    assert digest(Point(1, [2])) == digest(Point(1, [2]))
    assert digest(pl.col("a").is_in([1, 2])) == digest(pl.col("a").is_in([1, 2])) != digest(pl.col("a").is_in([1, 3]))


@pytest.mark.parametrize("value", [object(), [object()], np.array([object()]), digest, iter([])])
def test_what_cannot_be_told_by_its_contents_is_refused(value: Any) -> None:
    with pytest.raises(NotCanonicalError):
        digest(value)
