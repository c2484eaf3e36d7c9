"""Sparse codes as users have them, on their way to the store: entries (feature, value) row after row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import flatten, is_integer, is_tensor
from lamina.runs.layout import RowSet, row_names, rows_of

if TYPE_CHECKING:
    from lamina._core import Buffer
    from lamina.runs.staging import Staging


class Entries(NamedTuple):
    """Codes of rows: `lead` is how many, or [B, T]."""

    lead: tuple[int, ...]
    width: int
    bounds: int | np.ndarray
    """How many entries each row has, or int64 row pointers as bytes."""
    ids: tuple[str, Buffer]
    values: tuple[str, Buffer]

    def size(self) -> tuple[int, int]:
        """How many entries, and about how many bytes they are when they are stored."""
        taken = memoryview(self.values[1]).nbytes  # pyright: ignore[reportArgumentType]
        count = taken // (4 if self.values[0] == "f32" else 2)
        return count, taken + count * (2 if self.width <= 1 << 16 else 4)


def row_set(lead: tuple[int, ...], row: Any, metadata: Mapping[str, Any]) -> RowSet:
    """The rows that codes are of: rows that exist, or new ones with metadata."""
    if row is None:
        return rows_of(lead, metadata)
    names = row_names(row)
    count = lead[0] if len(lead) == 1 else lead[0] * lead[1]
    if names.size != count:
        raise SchemaError(f"the codes have {count} rows, row= names {names.size}")
    return RowSet(count, [], [], names.view(np.uint8))


def entries(name: str, codes: Any, width: int | None, threshold: float | None, staging: Staging) -> Entries:
    """Take codes apart, whatever they are; see `Writer.features`.

    Raises:
        SchemaError: They are no codes, or `width` or `threshold` do not fit them.
    """
    what = f"the codes {name!r}"
    if width is not None and not (is_integer(width) and 0 < width < 1 << 31):
        raise SchemaError(f"width={width!r}", hint=f"give the number of features, 1 to {(1 << 31) - 1}")
    if threshold is not None:
        return _of_dense(what, codes, width, threshold, staging)
    if isinstance(codes, tuple | list):
        return _of_pair(what, codes, width, staging)
    if hasattr(codes, "ids") and hasattr(codes, "width") and hasattr(codes, "values"):
        return _of_codes(what, codes, width, staging)
    if getattr(codes, "format", None) == "coo" and len(codes.shape) == 2:
        return _of_coo(what, codes, width, staging)
    if hasattr(codes, "tocsr"):
        matrix = codes.tocsr()
        return _csr(what, matrix.shape, matrix.indptr, matrix.indices, matrix.data, width, staging)
    if is_tensor(codes) and str(codes.layout) in ("torch.sparse_csr", "torch.sparse_coo"):
        return _of_tensor(what, codes.detach(), width, staging)
    if is_tensor(codes) and (layout := str(codes.layout)) != "torch.strided":
        raise SchemaError(f"{what} are a tensor of layout {layout}", hint="give its to_sparse_csr()")
    dense = is_tensor(codes) or isinstance(codes, np.ndarray)
    hint = "a dense tensor needs threshold=" if dense else "give a sparse matrix, (values, indices), or codes"
    raise SchemaError(f"{what} are a {type(codes).__name__}", hint=hint)


def _of_pair(what: str, codes: tuple[Any, ...] | list[Any], width: int | None, staging: Staging) -> Entries:
    if len(codes) != 2:
        raise SchemaError(f"{what} are {len(codes)} things", hint="give (values, indices), as torch.topk returns them")
    if width is None:
        raise SchemaError(f"how many features there are does not show in {what}", hint="give width=")
    values, ids = (_flat(part, what, staging) for part in codes)
    if values.shape != ids.shape or len(ids.shape) not in (2, 3):
        shapes = f"{list(values.shape)} and {list(ids.shape)}"
        raise SchemaError(f"{what} are of shapes {shapes}", hint="give (values, indices), both [n, k] or [B, T, k]")
    return Entries(ids.shape[:-1], width, ids.shape[-1], _ids(what, ids), _values(what, values))


def _of_codes(what: str, codes: Any, width: int | None, staging: Staging) -> Entries:
    _check_width(what, codes.width, width)
    if getattr(codes, "indptr", None) is None:
        return _of_pair(what, (codes.values, codes.ids), int(codes.width), staging)
    shape = (len(codes.indptr) - 1, int(codes.width))
    return _csr(what, shape, codes.indptr, codes.ids, codes.values, width, staging)


def _of_coo(what: str, codes: Any, width: int | None, staging: Staging) -> Entries:
    # tocsr() would add what stands twice, which is for the store to do, or to refuse
    order = np.argsort(codes.row, kind="stable")
    indptr = np.append(0, np.cumsum(np.bincount(codes.row, minlength=codes.shape[0])))
    return _csr(what, codes.shape, indptr, codes.col[order], codes.data[order], width, staging)


def _of_tensor(what: str, codes: Any, width: int | None, staging: Staging) -> Entries:
    import torch

    if codes.layout == torch.sparse_csr:
        indptr, ids, values = codes.crow_indices(), codes.col_indices(), codes.values()
    else:
        if codes.sparse_dim() != 2 or codes.dense_dim():
            dims = f"{codes.sparse_dim()} sparse and {codes.dense_dim()} dense dimensions"
            raise SchemaError(f"{what} are a tensor of {dims}", hint="give a matrix [n, width], both of them sparse")
        (rows, ids), values = codes._indices(), codes._values()
        order = rows.argsort(stable=True)
        ids, values = ids[order], values[order]
        counts = torch.bincount(rows, minlength=codes.shape[0])
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return _csr(what, tuple(codes.shape), indptr, ids, values, width, staging)


def _of_dense(what: str, codes: Any, width: int | None, threshold: float, staging: Staging) -> Entries:
    shape: list[int] = [*getattr(codes, "shape", ())]
    if len(shape) not in (2, 3) or hasattr(codes, "tocsr") or not (is_tensor(codes) or isinstance(codes, np.ndarray)):
        raise SchemaError(f"{what} with a threshold are no dense tensor", hint="give [n, width] or [B, T, width]")
    if not hasattr(threshold, "__float__") or getattr(threshold, "ndim", 0) or not threshold >= 0:
        hint = "units above it in absolute value are active: one number, 0 or more"
        raise SchemaError(f"threshold={threshold!r}", hint=hint)
    flat: Any = codes.reshape(math.prod(shape[:-1]), shape[-1])
    # what is not a number is no smaller than the threshold
    active = ~(abs(flat) <= threshold)
    rows, ids = active.nonzero().unbind(1) if is_tensor(flat) else active.nonzero()
    counts = active.sum(1).cpu().numpy() if is_tensor(flat) else active.sum(1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    csr = _csr(what, (len(flat), shape[-1]), indptr, ids, flat[rows, ids], width, staging)
    return csr._replace(lead=tuple(shape[:-1]))


def _csr(
    what: str, shape: tuple[int, ...], indptr: Any, ids: Any, values: Any, width: int | None, staging: Staging
) -> Entries:
    if len(shape) != 2:
        raise SchemaError(f"{what} are of shape {list(shape)}", hint="give a matrix [n, width]")
    _check_width(what, shape[1], width)
    pointers = indptr.detach().cpu().numpy() if is_tensor(indptr) else np.asarray(indptr)
    pointers = np.ascontiguousarray(pointers, dtype=np.int64).view(np.uint8)
    taken = _ids(what, _flat(ids, what, staging)), _values(what, _flat(values, what, staging))
    return Entries((int(shape[0]),), int(shape[1]), pointers, *taken)


def _flat(part: Any, what: str, staging: Staging) -> Any:
    return flatten(part.detach() if is_tensor(part) else part, what, staging)


def _ids(what: str, ids: Any) -> tuple[str, Buffer]:
    if ids.dtype[0] not in "iu" or ids.dtype == "u64":
        is_swapped = "f" in ids.dtype
        hint = "give (values, indices), in this order" if is_swapped else "give their numbers, for example as int64"
        raise SchemaError(f"the features of {what} are {ids.dtype}", hint=hint)
    return ids.dtype, ids.bytes


def _values(what: str, values: Any) -> tuple[str, Buffer]:
    if values.dtype not in ("f16", "bf16", "f32"):
        hint = "give f16, bf16 or f32, for example by .astype(numpy.float32) or .float()"
        raise SchemaError(f"the values of {what} are {values.dtype}", hint=hint)
    return values.dtype, values.bytes


def _check_width(what: str, found: int, width: int | None) -> None:
    if width is not None and width != found:
        raise SchemaError(f"{what} have {found} features, width={width}")
