"""Sparse codes as rows: the same numbers as the dense matrix, without it."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from lamina import similarity
from lamina.errors import SchemaError
from lamina.rows import Rows
from tests.faults import broken
from tests.meter import peak_bytes

N, WIDTH, K = 60, 40, 5
GENERATOR = torch.Generator().manual_seed(0)
INDICES = torch.rand(N, WIDTH, generator=GENERATOR).topk(K).indices
VALUES = torch.randn(N, K, generator=GENERATOR)
DENSE = torch.zeros(N, WIDTH).scatter_(1, INDICES, VALUES)
FEATURES = [7, 0, 39, 12]


def csr_tensor() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return DENSE.to_sparse_csr()


def givens() -> dict[str, Any]:
    return {
        "scipy CSR": sparse.csr_array(DENSE.numpy()),
        "scipy matrix": sparse.csr_matrix(DENSE.numpy()),
        "scipy COO": sparse.coo_array(DENSE.numpy()),
        "torch CSR": csr_tensor(),
        "torch COO": DENSE.to_sparse(),
        "top k": (VALUES, INDICES),
        "NumPy top k, uint16": (VALUES.numpy(), INDICES.numpy().astype(np.uint16)),
        "NumPy top k, uint32": (VALUES.numpy(), INDICES.numpy().astype(np.uint32)),
    }


def check_dense() -> None:
    for what, given in givens().items():
        rows = Rows.of(given, features=FEATURES)
        assert (rows.shape, rows.dtype) == ((N, 4), torch.float32), what
        expected = DENSE[:, FEATURES]
        torch.testing.assert_close(torch.cat(list(rows.blocks(7))), expected, rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([block.dense() for block in rows.codes(7)]), expected, rtol=0, atol=0)
        wanted = [59, 3, 3, 0]
        torch.testing.assert_close(rows.gather(wanted), expected[wanted], rtol=0, atol=0)
        torch.testing.assert_close(rows[10:20].gather([9, 0]), expected[[19, 10]], rtol=0, atol=0)
        torch.testing.assert_close(rows[wanted][1:].gather([0, 2]), expected[[3, 0]], rtol=0, atol=0)
        assert rows.gather([]).shape == (0, 4)


def test_chosen_features_are_those_of_the_dense_matrix() -> None:
    check_dense()


@pytest.mark.parametrize("name", ["codes_come_in_order_of_features", "codes_start_at_the_first_row"])
def test_faults_are_noticed(name: str) -> None:
    with broken(name), pytest.raises(AssertionError):
        check_dense()


def test_dense_rows_are_no_codes() -> None:
    with pytest.raises(SchemaError, match="dense"):
        next(Rows.of(DENSE).codes(3))
    with pytest.raises(SchemaError, match="0 rows"):
        next(Rows.of((VALUES, INDICES), features=FEATURES).codes(0))


def test_without_features_all_come() -> None:
    for given in (sparse.csr_array(DENSE.numpy()), DENSE.to_sparse(), csr_tensor()):
        torch.testing.assert_close(Rows.of(given).gather(range(N)), DENSE, rtol=0, atol=0)


def test_a_measure_of_codes_is_that_of_the_dense_matrix() -> None:
    y = torch.randn(N, 6, generator=torch.Generator().manual_seed(1))
    rows = Rows.of((VALUES, INDICES), {"example": np.arange(N) // 2}, features=FEATURES)
    expected = similarity.cka(DENSE[:, FEATURES], y, groups=np.arange(N) // 2)
    assert similarity.cka(rows, y).value == pytest.approx(expected.value, rel=1e-6)
    assert similarity.cka(sparse.csr_array(DENSE.numpy()), y).value == pytest.approx(similarity.cka(DENSE, y).value)


def test_what_a_row_has_twice_is_added_and_padding_is_nothing() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    indices = torch.tensor([[3, 3, -1], [0, -1, 9]])
    rows = Rows.of((values, indices), features=[0, 3])
    assert rows.gather([0, 1]).tolist() == [[0.0, 3.0], [8.0, 0.0]]


def test_large_numbers_of_features() -> None:
    for dtype, last in ((np.uint16, 65_535), (np.uint32, 4_000_000), (np.int64, 4_000_000)):
        given = (np.array([[2.0, 3.0]]), np.array([[last, 1]], dtype))
        assert Rows.of(given, features=[last, 1]).gather([0]).tolist() == [[2.0, 3.0]]


def test_rows_without_entries() -> None:
    empty = sparse.csr_array((5, 9), dtype=np.float32)
    assert not Rows.of(empty, features=[1, 2]).gather(range(5)).any()
    assert Rows.of(empty, features=[]).shape == (5, 0)


def test_metadata_devices_dtypes_and_pickles() -> None:
    rows = Rows.of((VALUES, INDICES), {"example": np.arange(N) // 3}, features=FEATURES)[5:50]
    assert rows.metadata(["row", "example"])["example"].to_list() == [row // 3 for row in range(5, 50)]
    again = pickle.loads(pickle.dumps(rows))
    assert again.columns == rows.columns
    torch.testing.assert_close(again[3:].gather([0]), DENSE[[8]][:, FEATURES], rtol=0, atol=0)
    assert rows.to(dtype=torch.float64).gather([0]).dtype == torch.float64


SNIPPET = """
import numpy as np, torch
from lamina import similarity
from lamina.rows import Rows, centering
centering.BLOCK = 2**18
n, k, width = {n}, 32, 65536
draw = np.random.default_rng(0)
values = draw.random((n, k), np.float32)
indices = draw.integers(0, width, (n, k), np.uint16)
rows = Rows.of((values, indices), features=range(0, width, 256))
total = sum(float(block.sum()) for block in rows.blocks(512))
assert total > 0 and rows.shape == (n, 256)
"""


def test_codes_are_never_dense_as_a_whole() -> None:
    small, large = (peak_bytes(SNIPPET.format(n=n)) for n in (10_000, 50_000))
    a_row = (large - small) / 40_000
    # the codes themselves are 192 bytes; dense rows of the features 1,024, of all 262,144
    assert a_row < 500, f"{a_row:.0f} bytes a row"


@pytest.mark.parametrize(
    ("given", "features", "message"),
    [
        (sparse.csr_array(DENSE.numpy()), [40], "feature 40 of codes 40 wide"),
        (sparse.csr_array(DENSE.numpy()), [1, 1], "twice"),
        ((VALUES, INDICES), [-1], "below 0"),
        ((VALUES, INDICES), [0.5], "features="),
        ((INDICES, VALUES), [1], "the indices are torch.float32"),
        ((VALUES, INDICES[:, 1:]), [1], r"\[60, 5\], \[60, 4\]"),
        ((VALUES[None], INDICES[None]), [1], r"\[1, 60, 5\]"),
        (DENSE, [1], "not sparse"),
        (Rows.of(DENSE), [1], "features= for Rows"),
        (torch.zeros(2, 3, 4).to_sparse(), [1], r"\[2, 3, 4\]"),
    ],
)
def test_bad_input(given: Any, features: list[int], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Rows.of(given, features=features)
