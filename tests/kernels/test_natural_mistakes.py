"""Arguments of another kind than meant: integers of NumPy and torch are numbers, and what is no tensor is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lamina_kernels import gram, sparse
from lamina_kernels.gram import RBF, Linear

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


FOUR: Any = np.int64(4)


@pytest.mark.parametrize("k", [np.int64(3), torch.tensor(3)])
def test_whole_numbers_of_numpy_and_torch_count(k: Any) -> None:
    assert torch.equal(gram.nearest(X, None, k).indices, gram.nearest(X, None, 3).indices)
    for given, meant in (
        (sparse.TopK(k), sparse.TopK(3)),
        (sparse.BatchTopK(k), sparse.BatchTopK(3)),
        (sparse.GroupTopK(1, FOUR), sparse.GroupTopK(1, 4)),
        (sparse.KWinners(k), sparse.KWinners(3)),
        (sparse.MassShare(0.5, most=k), sparse.MassShare(0.5, most=3)),
    ):
        found, expected = (sparse.encode(X, WEIGHT, select=select).codes for select in (given, meant))
        assert torch.equal(found.dense(), expected.dense())
    assert sparse.TopK(k) == sparse.TopK(3)
    assert torch.equal(sparse.quantize(X, WEIGHT, k).output, sparse.quantize(X, WEIGHT, 3).output)


@pytest.mark.parametrize("k", [0, -1, 3.0, True, "3", np.float32(3), torch.tensor([1, 2])])
def test_what_is_no_whole_number_is_refused(k: Any) -> None:
    for call in (lambda: gram.nearest(X, None, k), lambda: sparse.TopK(k), lambda: sparse.quantize(X, WEIGHT, k)):
        with pytest.raises(ValueError, match=r"k is .*, expected a whole number"):
            call()


ROWS: Any = X  # of a type that lets everything pass
KERNEL: Any = RBF(1.0)
NEAREST: Any = gram.nearest
MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: gram.row_sums(ROWS.numpy(), kernel=Linear()), "x is a ndarray, expected a tensor"),
    (lambda: NEAREST(X, 3, 3), "y is a int, expected a tensor"),
    (lambda: gram.cka_matrix(ROWS, kernel=Linear()), r"expected several: \[x, y\]"),
    (lambda: gram.mmd(X, X, kernel=RBF(1.0), groups=ROWS), "groups is a Tensor, expected a pair"),
    (lambda: KERNEL + 1, "unsupported operand"),
    (lambda: KERNEL * 2, "unsupported operand"),
    (lambda: sparse.decode(ROWS, WEIGHT), "codes is a Tensor, expected Codes"),
]


@pytest.mark.parametrize(("call", "says"), MISTAKES)
def test_arguments_of_another_kind_are_named(call: Callable[[], object], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


def test_codes_say_what_they_are_and_not_their_numbers() -> None:
    codes = sparse.encode(X, WEIGHT, select=sparse.TopK(3)).codes
    assert repr(codes) == "Codes(12 x 16, 36 entries, 3 a row, float32, cpu)"
    assert repr(codes.csr()) == "Codes(12 x 16, 36 entries, float32, cpu)"
