"""Codes against the dense matrix that they stand for, and what others make of them."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import scipy.sparse
import torch
from torch import Tensor

from lamina_kernels.sparse import Codes, from_dense, from_scipy, from_topk, from_torch, to_scipy, to_torch
from lamina_kernels.sparse.codes import ID_DTYPES
from tests.faults import broken
from tests.kernels import sparse_faults  # noqa: F401

WIDTH = 7


def fixed(dtype: torch.dtype = torch.float64, ids: torch.dtype = torch.int32) -> Codes:
    """Return codes of five rows with four entries each, in no order, some of one unit."""
    numbers = torch.Generator().manual_seed(0)
    at = torch.randint(0, WIDTH, (5, 4), generator=numbers)
    return Codes(torch.randn(5, 4, generator=numbers, dtype=torch.float64).to(dtype), at.to(ids), WIDTH)


def ragged(dtype: torch.dtype = torch.float64, ids: torch.dtype = torch.int32) -> Codes:
    """Return codes of five rows, the first and the third of them empty."""
    codes = fixed(dtype, ids)
    indptr = torch.tensor([0, 0, 7, 7, 8, 20])
    return Codes(codes.values.flatten(), codes.ids.flatten(), WIDTH, indptr)


def by_hand(codes: Codes) -> Tensor:
    """Return the matrix, one entry after the other."""
    matrix = torch.zeros(codes.shape, dtype=codes.values.dtype)
    ends = (codes.indptr if codes.indptr is not None else torch.arange(len(codes) + 1) * codes.ids.shape[1]).tolist()
    values, ids = codes.values.flatten(), codes.ids.flatten().tolist()
    for row in range(len(codes)):
        for place in range(ends[row], ends[row + 1]):
            matrix[row, ids[place]] += values[place]
    return matrix


FORMS = [fixed, ragged]


@pytest.mark.parametrize("form", FORMS)
def test_the_dense_matrix_is_the_sum_of_the_entries(form: Callable[..., Codes]) -> None:
    codes = form()
    assert torch.equal(codes.dense(), by_hand(codes))
    assert codes.shape == (5, WIDTH)
    assert codes.nnz == 20
    assert codes.counts().sum() == 20
    assert torch.equal(codes.csr().dense(), by_hand(codes))
    assert codes.csr().indptr is not None


def test_entries_that_replace_each_other_are_noticed() -> None:
    with broken("codes_of_one_unit_replace_each_other"), pytest.raises(AssertionError):
        test_the_dense_matrix_is_the_sum_of_the_entries(ragged)


@pytest.mark.parametrize("ids", ID_DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_any_integers_name_units(form: Callable[..., Codes], ids: torch.dtype) -> None:
    codes = form(ids=ids)
    for other in (codes, codes.sorted(), codes.merged(), codes.rows(torch.tensor([4, 1])), codes.rows(slice(1, 4))):
        assert other.ids.dtype == ids
    assert torch.equal(codes.sorted().dense(), form().dense())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "index",
    [
        slice(None),
        slice(1, 4),
        slice(4, 1),
        slice(None, None, 2),
        torch.tensor([3, 3, 1, -1]),
        torch.tensor([False, True, False, True, True]),
        torch.empty(0, dtype=torch.int64),
    ],
)
def test_rows_are_those_of_the_matrix(form: Callable[..., Codes], index: Any) -> None:
    assert torch.equal(form().rows(index).dense(), form().dense()[index])


def test_rows_that_begin_at_the_wrong_entry_are_noticed() -> None:
    with broken("codes_forget_where_rows_begin"), pytest.raises(AssertionError):
        test_rows_are_those_of_the_matrix(ragged, torch.tensor([3, 1]))


@pytest.mark.parametrize("form", FORMS)
def test_order_and_repeats(form: Callable[..., Codes]) -> None:
    codes = form()
    merged = codes.merged()
    torch.testing.assert_close(merged.dense(), codes.dense())
    assert codes.repeats() == codes.nnz - merged.nnz > 0 == merged.repeats()
    for ordered in (codes.sorted().csr(), merged):
        falls = ordered.ids.diff() < 0
        assert bool((ordered.row_ids().diff()[falls] > 0).all())


@pytest.mark.parametrize("form", FORMS)
def test_values_have_gradients(form: Callable[..., Codes]) -> None:
    codes = form()

    def through(make: Callable[[Codes], Codes]) -> Callable[[Tensor], Tensor]:
        return lambda values: make(Codes(values, codes.ids, WIDTH, codes.indptr)).dense()

    for make in (Codes.sorted, Codes.merged, Codes.csr, lambda c: c.rows(torch.tensor([4, 1, 4]))):
        assert torch.autograd.gradcheck(through(make), codes.values.clone().requires_grad_())


def test_a_dense_matrix_and_back() -> None:
    matrix = by_hand(ragged())
    codes = from_dense(matrix, threshold=0.3)
    assert torch.equal(codes.dense(), matrix.where(matrix.abs() > 0.3, 0))
    assert codes.ids.dtype == torch.int32
    assert from_dense(torch.tensor([[float("nan"), 0.0]]), threshold=9.0).values.isnan().tolist() == [True]
    leaf = matrix.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: from_dense(x, threshold=0.01).values, leaf)


def test_what_topk_returned() -> None:
    matrix = fixed().dense()
    codes = from_topk(*matrix.topk(3), WIDTH)
    kept = torch.zeros_like(matrix).scatter(1, matrix.topk(3).indices, 1)
    assert torch.equal(codes.dense(), matrix * kept)
    assert bool((codes.ids.diff() > 0).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_sparse_tensors_and_matrices(form: Callable[..., Codes], dtype: torch.dtype) -> None:
    codes = form(dtype).merged()
    for layout in (torch.sparse_csr, torch.sparse_coo):
        matrix = to_torch(codes, layout=layout)
        assert matrix.layout == layout
        assert torch.equal(matrix.to_dense(), codes.dense())
        assert torch.equal(from_torch(matrix).dense(), codes.dense())
    matrix = to_scipy(codes)
    assert torch.equal(torch.from_numpy(matrix.toarray()), codes.dense().to(torch.promote_types(dtype, torch.float32)))
    for other in (matrix, matrix.tocoo(), matrix.tocsc(), scipy.sparse.csr_matrix(matrix)):
        assert torch.equal(from_scipy(other).dense().to(dtype), codes.dense())


def test_values_of_sparse_tensors_have_gradients() -> None:
    codes = ragged().merged()

    def there_and_back(values: Tensor) -> Tensor:
        matrix = to_torch(Codes(values, codes.ids, WIDTH, codes.indptr), layout=torch.sparse_coo)
        return matrix.to_dense()

    assert torch.autograd.gradcheck(there_and_back, codes.values.clone().requires_grad_())


def test_duplicates_are_refused_or_summed() -> None:
    at, values = torch.tensor([[1, 0, 1], [2, 0, 2]]), torch.tensor([5.0, 7.0, 1.0])
    coo = torch.sparse_coo_tensor(at, values, (3, WIDTH), check_invariants=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = torch.sparse_csr_tensor([0, 1, 3, 3], [0, 2, 2], torch.tensor([7.0, 5.0, 1.0]), (3, WIDTH))
    numbers = scipy.sparse.coo_array((values.numpy(), tuple(at.numpy())), shape=(3, WIDTH))
    cases: list[tuple[Callable[..., Codes], Any]] = [(from_torch, coo), (from_torch, csr), (from_scipy, numbers)]
    for convert, matrix in cases:
        with pytest.raises(ValueError, match="1 entries are of a unit that their row has already"):
            convert(matrix)
        summed = convert(matrix, duplicates="sum")
        assert summed.nnz == 2
        assert summed.dense()[1, 2] == 6.0
        with pytest.raises(ValueError, match="duplicates is 'keep'"):
            convert(matrix, duplicates="keep")


@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("width", [0, 4])
def test_no_rows_no_units_and_no_entries(n: int, width: int) -> None:
    none = Codes(torch.empty(n, 0), torch.empty(n, 0, dtype=torch.int32), width)
    for codes in (none, none.csr(), none.sorted(), none.merged() if width else none, from_dense(torch.zeros(n, width))):
        assert codes.shape == (n, width)
        assert codes.dense().shape == (n, width)
        assert codes.rows(slice(1, None)).shape == (max(n - 1, 0), width)
        assert codes.repeats() == 0
    if width:
        assert from_torch(to_torch(none)).shape == to_scipy(none).shape == (n, width)


def test_codes_move() -> None:
    codes = ragged(torch.float32).to(dtype=torch.float16, device="meta")
    assert codes.indptr is not None
    assert {codes.indptr.device.type, codes.ids.device.type} == {"meta"}
    assert codes.values.dtype == torch.float16
    assert codes.ids.dtype == torch.int32


VALUES, IDS = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.int32)
FLAT, AT = torch.ones(3), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((VALUES, IDS, -1), "width is -1"),
        ((VALUES, IDS, 2.0), "width is 2.0"),
        ((VALUES, IDS, True), "width is True"),
        ((VALUES.long(), IDS, 4), "values are torch.int64"),
        ((VALUES, IDS.float(), 4), "ids are torch.float32"),
        ((VALUES, IDS[:1], 4), r"values are \[2, 3\] and ids \[1, 3\], expected both \[n, k\]"),
        ((VALUES, IDS, 4, AT), r"expected both \[nnz\] with an indptr"),
        ((FLAT, AT, 4), r"values are \[3\] and ids \[3\], expected both \[n, k\]"),
        ((FLAT, AT, 4, torch.tensor([0, 3], dtype=torch.int32)), "indptr is torch.int32"),
        ((FLAT, AT, 4, torch.empty(0, dtype=torch.int64)), r"indptr is torch.int64 \[0\]"),
        ((FLAT, AT, 4, torch.tensor([0, 2])), "indptr goes from 0 to 2, expected from 0 to 3"),
        ((FLAT, AT, 4, torch.tensor([1, 3])), "indptr goes from 1 to 3"),
        ((FLAT, AT, 4, torch.tensor([0, 2, 1, 3])), "indptr falls after row 1"),
        ((FLAT, AT, 2, torch.tensor([0, 3])), "ids go from 0 to 2, expected from 0 to 1"),
        ((FLAT, -AT, 4, torch.tensor([0, 3])), "ids go from -2 to 0"),
        ((FLAT, AT, 4, torch.tensor([0, 3], device="meta")), "expected one device"),
        ((VALUES, IDS.to(torch.uint16), 65_537), "width is 65537, but torch.uint16 ids count up to 65535"),
        ((VALUES, IDS.to(torch.int16), 32_769), "width is 32769, but torch.int16 ids"),
    ],
)
def test_what_codes_refuse(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match="Codes: .*" + message):
        Codes(*arguments)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda: from_torch(torch.ones(2, 2)), "matrix is torch.strided"),
        (lambda: from_torch(VALUES.to_sparse_coo()[None]), r"matrix is torch.sparse_coo \[1, 2, 3\]"),
        (lambda: from_topk(VALUES, IDS, 9), "from_topk: 4 entries are of a unit"),
        (lambda: to_torch(Codes(VALUES, IDS, 9)), "to_torch: 4 entries are of a unit"),
        (lambda: to_torch(ragged().merged(), layout=torch.strided), "layout is torch.strided"),
        (lambda: from_dense(VALUES, threshold=-1.0), "threshold is -1.0"),
        (lambda: from_dense(VALUES, threshold=float("nan")), "threshold is nan"),
        (lambda: from_dense(FLAT), r"from_dense: x has shape \[3\]"),
    ],
)
def test_what_conversions_refuse(convert: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert()


def test_scipy_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without_scipy(name: str, *rest: Any) -> Any:
        if name.startswith("scipy"):
            raise ModuleNotFoundError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_scipy)
    with pytest.raises(ModuleNotFoundError, match="to_scipy needs SciPy, which is not installed"):
        to_scipy(fixed())
