"""Codes from and to dense matrices, the results of torch.topk, and the sparse matrices of torch and SciPy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lamina_kernels import checks
from lamina_kernels.sparse.codes import Codes

if TYPE_CHECKING:
    import scipy.sparse

Duplicates = Literal["refuse", "sum"]


def from_dense(x: Tensor, *, threshold: float = 0.0) -> Codes:
    """Keep the entries of a matrix whose size is above a threshold.

    A NaN is kept: it is not below any threshold.

    Args:
        x: [n, M], float16, bfloat16, float32 or float64; differentiable.
        threshold: An entry is kept if |x| is larger.

    Returns:
        Codes with an indptr, ids ascending in int32.

    Raises:
        ValueError: x is no such matrix; a threshold that is negative or NaN.

    Example:
        >>> import torch
        >>> codes = from_dense(torch.tensor([[0.0, -2.0, 0.5], [0.0, 0.0, 0.0]]), threshold=0.1)
        >>> codes.values.tolist(), codes.ids.tolist(), codes.indptr.tolist()
        ([-2.0, 0.5], [1, 2], [0, 2, 2])
    """
    checks.matrices("from_dense", x=x)
    if not threshold >= 0:
        raise ValueError(f"from_dense: threshold is {threshold}, expected at least 0")
    kept = ~(x.detach().abs() <= threshold)
    rows, ids = kept.nonzero().unbind(1)
    return Codes(x[rows, ids], ids.int(), x.shape[1], _ends(kept.sum(1)), check=False)


def from_topk(values: Tensor, indices: Tensor, width: int) -> Codes:
    """Take what `torch.topk` returned for the rows of a matrix.

    Args:
        values: [n, k], differentiable.
        indices: [n, k] integers.
        width: How many columns the matrix had.

    Returns:
        Codes [n, k], ids ascending in int32.

    Raises:
        ValueError: As of `Codes`; a column that stands twice in a row.

    Example:
        >>> import torch
        >>> codes = from_topk(*torch.tensor([[3.0, 1.0, 5.0]]).topk(2), width=3)
        >>> codes.values.tolist(), codes.ids.tolist()
        ([[3.0, 5.0]], [[0, 2]])
    """
    return _told(Codes(values, indices, width), "from_topk", "refuse")


def from_torch(matrix: Tensor, *, duplicates: Duplicates = "refuse") -> Codes:
    """Take the stored entries of a sparse tensor of torch; zeros that are stored stay.

    Args:
        matrix: [n, M], `torch.sparse_coo` or `torch.sparse_csr`; differentiable in its values where torch is.
        duplicates: What becomes of entries at one place: `"refuse"`, an error, or `"sum"`.

    Returns:
        Codes with an indptr, ids ascending in int32.

    Raises:
        ValueError: Another layout, entries that are vectors, other than two dimensions; duplicates that are refused.

    Example:
        >>> import torch
        >>> from_torch(torch.tensor([[0.0, 7.0], [5.0, 0.0]]).to_sparse_coo()).dense().tolist()
        [[0.0, 7.0], [5.0, 0.0]]
    """
    if matrix.layout not in (torch.sparse_coo, torch.sparse_csr) or matrix.ndim != 2 or matrix.dense_dim() != 0:
        found = f"{matrix.layout} {list(matrix.shape)}"
        raise ValueError(f"from_torch: matrix is {found}, expected torch.sparse_coo or torch.sparse_csr [n, M]")
    n, width = matrix.shape
    if matrix.layout == torch.sparse_csr:
        codes = Codes(matrix.values(), matrix.col_indices(), width, matrix.crow_indices().long())
        return _told(codes, "from_torch", duplicates)
    # An uncoalesced tensor shows its entries through the underscored names alone.
    indices = matrix.indices() if matrix.is_coalesced() else matrix._indices()
    values = matrix.values() if matrix.is_coalesced() else matrix._values()
    return _told(_by_rows(indices[0], indices[1], values, n, width), "from_torch", duplicates)


def from_scipy(matrix: Any, *, duplicates: Duplicates = "refuse") -> Codes:
    """Take the stored entries of a sparse matrix of SciPy, of any format; zeros that are stored stay.

    Args:
        matrix: [n, M], float32 or float64, a matrix or an array of `scipy.sparse`.
        duplicates: As of `from_torch`.

    Returns:
        Codes with an indptr, ids ascending in int32, that share no memory with the matrix.

    Raises:
        ValueError: As of `from_torch`.

    Example:
        >>> import scipy.sparse
        >>> from_scipy(scipy.sparse.csr_array([[0.0, 7.0], [5.0, 0.0]])).ids.tolist()
        [1, 0]
    """
    entries = matrix.tocoo()
    n, width = entries.shape
    # SciPy takes duplicates of CSR over into COO as they stand.
    rows, ids = torch.tensor(entries.row).long(), torch.tensor(entries.col)
    return _told(_by_rows(rows, ids, torch.tensor(entries.data), n, width), "from_scipy", duplicates)


def to_torch(codes: Codes, *, layout: torch.layout = torch.sparse_csr) -> Tensor:
    """Return codes as a sparse tensor of torch, [n, M].

    Args:
        codes: Unique ids; `codes.merged()` makes them so.
        layout: `torch.sparse_csr` or `torch.sparse_coo`, which is coalesced.

    Returns:
        The matrix; differentiable in the values where torch is.

    Raises:
        ValueError: Another layout, or ids that stand twice in a row.

    Example:
        >>> import torch
        >>> to_torch(Codes(torch.tensor([[2.0]]), torch.tensor([[1]]), 3), layout=torch.sparse_coo).to_dense().tolist()
        [[0.0, 2.0, 0.0]]
    """
    if layout not in (torch.sparse_coo, torch.sparse_csr):
        raise ValueError(f"to_torch: layout is {layout}, expected torch.sparse_coo or torch.sparse_csr")
    codes = _unique(codes, "to_torch").csr()
    assert codes.indptr is not None
    if layout == torch.sparse_coo:
        at = torch.stack([codes.row_ids(), codes.ids.long()])
        return torch.sparse_coo_tensor(at, codes.values, codes.shape, is_coalesced=True, check_invariants=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        # Torch 2.11 says so although they are asked for.
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(codes.indptr, codes.ids.long(), codes.values, codes.shape, check_invariants=True)


def to_scipy(codes: Codes) -> scipy.sparse.csr_array:
    """Return codes as a `scipy.sparse.csr_array`, [n, M]; values in half precision become float32.

    Args:
        codes: On any device; ids that stand twice in a row do so in the result, and SciPy adds them up.

    Raises:
        ModuleNotFoundError: SciPy is not installed.

    Example:
        >>> import torch
        >>> to_scipy(Codes(torch.tensor([[2.0]]), torch.tensor([[1]]), 3)).toarray().tolist()
        [[0.0, 2.0, 0.0]]
    """
    try:
        import scipy.sparse
    except ModuleNotFoundError as error:
        message = "to_scipy needs SciPy, which is not installed: pip install scipy"
        raise ModuleNotFoundError(message, name="scipy") from error
    codes = codes.csr().to(device="cpu", dtype=torch.promote_types(codes.values.dtype, torch.float32))
    assert codes.indptr is not None
    parts = codes.values.detach().numpy(), codes.ids.long().numpy(), codes.indptr.numpy()
    return scipy.sparse.csr_array(parts, shape=codes.shape)


def _by_rows(rows: Tensor, ids: Tensor, values: Tensor, n: int, width: int) -> Codes:
    """Return codes of entries in any order."""
    order = rows.argsort(stable=True)
    return Codes(values[order], ids[order], width, _ends(rows.bincount(minlength=n)))


def _ends(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _told(codes: Codes, name: str, duplicates: Duplicates) -> Codes:
    """Return codes as the face returns them: ids in int32, ascending and unique."""
    if duplicates not in ("refuse", "sum"):
        raise ValueError(f"{name}: duplicates is {duplicates!r}, expected 'refuse' or 'sum'")
    codes = codes.merged() if duplicates == "sum" else _unique(codes, name).sorted()
    return Codes(codes.values, codes.ids.int(), codes.width, codes.indptr, check=False)


def _unique(codes: Codes, name: str) -> Codes:
    repeats = codes.repeats()
    if repeats:
        raise ValueError(f"{name}: {repeats} entries are of a unit that their row has already, expected unique ids")
    return codes
