"""Sparse codes: the entries of a matrix of activations that are kept, a row after the other."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, replace

import torch
from torch import Tensor

from lamina_kernels.checks import DTYPES

ID_DTYPES = (torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64)
"""What ids may be; encoders return int32."""


@dataclass(frozen=True, eq=False)
class Codes:
    """The kept entries of n rows of `width` units: their values and the ids of their units.

    With as many entries in every row, values and ids are [n, k]. Else the rows stand one after the other, as in
    compressed sparse rows (CSR), and `indptr` says where each begins. Codes are differentiable in their values.
    Encoders return ids in int32 that ascend within a row; in general they may stand in any order, and entries of one
    unit in one row add up.

    Attributes:
        values: [n, k] or [nnz], float16, bfloat16, float32 or float64.
        ids: Integers of the same shape, from 0 to width - 1, on the same device.
        width: The number of units, M.
        indptr: None for [n, k]; else [n + 1] int64, row i being the entries from `indptr[i]` to `indptr[i + 1]`.
        check: Whether the numbers in ids and indptr are looked at, which waits for a GPU. Not an attribute.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit; ids that are negative, or not below the width; a width
            that the dtype of the ids cannot count; an indptr that does not begin at 0, falls, or does not end at nnz.

    Example:
        >>> import torch
        >>> codes = Codes(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0, 3], [1, 2]]), width=4)
        >>> codes.dense().tolist()
        [[1.0, 0.0, 0.0, 2.0], [0.0, 3.0, 4.0, 0.0]]
        >>> ragged = Codes(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 3, 1]), 4, indptr=torch.tensor([0, 2, 2, 3]))
        >>> len(ragged), ragged.counts().tolist()
        (3, [2, 0, 1])
    """

    values: Tensor
    ids: Tensor
    width: int
    indptr: Tensor | None = None
    check: InitVar[bool] = True

    def __post_init__(self, check: bool) -> None:
        self._check_form()
        if check:
            self._check_numbers()

    def __repr__(self) -> str:
        """Return what the matrix is, and not its numbers."""
        dtype, where = str(self.values.dtype).removeprefix("torch."), self.values.device.type
        each = "" if self.indptr is not None else f", {self.values.shape[1]} a row"
        return f"Codes({len(self)} x {self.width}, {self.nnz} entries{each}, {dtype}, {where})"

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values) if self.indptr is None else len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix: rows and units."""
        return len(self), self.width

    @property
    def nnz(self) -> int:
        """The number of entries."""
        return self.values.numel()

    def counts(self) -> Tensor:
        """Return how many entries each row has, [n] int64."""
        if self.indptr is None:
            return torch.full((len(self.values),), self.values.shape[1], dtype=torch.int64, device=self.ids.device)
        return self.indptr.diff()

    def row_ids(self) -> Tensor:
        """Return the row of each entry, in the order of the entries, [nnz] int64."""
        rows = torch.arange(len(self), device=self.ids.device)
        return rows.repeat_interleave(self.counts(), output_size=self.nnz)

    def csr(self) -> Codes:
        """Return the same entries with an indptr."""
        if self.indptr is not None:
            return self
        n, k = self.values.shape
        indptr = torch.arange(n + 1, device=self.ids.device) * k
        return Codes(self.values.flatten(), self.ids.flatten(), self.width, indptr, check=False)

    def dense(self) -> Tensor:
        """Return the matrix, [n, width], in the dtype of the values; entries of one unit in one row add up.

        Differentiable in the values. It is what codes are there to avoid: for tests, and for small ones.
        """
        at = self.row_ids() * self.width + self.ids.flatten().long()
        flat = self.values.new_zeros(len(self) * self.width)
        return flat.index_add(0, at, self.values.flatten()).view(self.shape)

    def rows(self, index: slice | Tensor) -> Codes:
        """Return some of the rows.

        Args:
            index: A slice, or row numbers [b] in any order, negative ones counted from the end, or booleans [n].

        Raises:
            IndexError: A row number beyond the rows.

        Example:
            >>> import torch
            >>> codes = Codes(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([0, 1, 1]), 2, torch.tensor([0, 1, 3]))
            >>> codes.rows(torch.tensor([1, 0])).dense().tolist()
            [[0.0, 13.0], [5.0, 0.0]]
        """
        if self.indptr is None:
            return replace(self, values=self.values[index], ids=self.ids[index], check=False)
        begin, end = self.indptr[:-1][index], self.indptr[1:][index]
        counts = end - begin
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        if isinstance(index, slice) and index.step in (None, 1):
            first, last = (int(begin[0]), int(end[-1])) if len(begin) else (0, 0)
            return Codes(self.values[first:last], self.ids[first:last], self.width, indptr, check=False)
        at = torch.arange(int(indptr[-1]), device=indptr.device) + (begin - indptr[:-1]).repeat_interleave(counts)
        return Codes(self.values[at], self.ids[at], self.width, indptr, check=False)

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Codes:
        """Return the codes on another device, or with values of another dtype."""
        indptr = None if self.indptr is None else self.indptr.to(device)
        return Codes(self.values.to(device, dtype), self.ids.to(device), self.width, indptr, check=False)

    def sorted(self) -> Codes:
        """Return the same entries with ids that ascend within each row; entries of one unit keep their order."""
        if self.indptr is None:
            ids, order = self.ids.long().sort(dim=1, stable=True)
            return replace(self, values=self.values.gather(1, order), ids=ids.to(self.ids.dtype), check=False)
        order = self._places().argsort(stable=True)
        return replace(self, values=self.values[order], ids=self.ids[order], check=False)

    def merged(self) -> Codes:
        """Return codes with an indptr, ids ascending, in which the entries of one unit in one row are added up.

        Example:
            >>> import torch
            >>> codes = Codes(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[2, 0, 2]]), width=3).merged()
            >>> codes.values.tolist(), codes.ids.tolist(), codes.indptr.tolist()
            ([2.0, 5.0], [0, 2], [0, 2])
        """
        places, inverse = self.csr()._places().unique(return_inverse=True)
        values = self.values.new_zeros(len(places)).index_add(0, inverse, self.values.flatten())
        counts = (places // self.width).bincount(minlength=len(self))
        indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return Codes(values, (places % self.width).to(self.ids.dtype), self.width, indptr, check=False)

    def repeats(self) -> int:
        """Return how many entries are of a unit that stands in their row already; 0 where every id is unique."""
        places = self.csr()._places().sort().values
        return int((places[1:] == places[:-1]).sum())

    def _places(self) -> Tensor:
        """Return where entries stand in the matrix, rows first, [nnz] int64."""
        return self.row_ids() * self.width + self.ids.flatten().long()

    def _check_form(self) -> None:
        values, ids, indptr = self.values, self.ids, self.indptr
        if isinstance(self.width, bool) or not isinstance(self.width, int) or self.width < 0:
            raise ValueError(f"Codes: width is {self.width!r}, expected a whole number of at least 0")
        if values.dtype not in DTYPES:
            raise ValueError(f"Codes: values are {values.dtype}, expected float16, bfloat16, float32 or float64")
        if ids.dtype not in ID_DTYPES:
            raise ValueError(f"Codes: ids are {ids.dtype}, expected integers, without a sign up to 16 bits")
        dimensions = 2 if indptr is None else 1
        if values.shape != ids.shape or values.ndim != dimensions:
            expected = "both [n, k] without an indptr" if indptr is None else "both [nnz] with an indptr"
            raise ValueError(f"Codes: values are {list(values.shape)} and ids {list(ids.shape)}, expected {expected}")
        if indptr is not None and (indptr.dtype != torch.int64 or indptr.ndim != 1 or len(indptr) == 0):
            raise ValueError(f"Codes: indptr is {indptr.dtype} {list(indptr.shape)}, expected int64 [n + 1]")
        if ids.device != values.device or (indptr is not None and indptr.device != values.device):
            devices = {str(tensor.device) for tensor in (values, ids, indptr) if tensor is not None}
            raise ValueError(f"Codes: values, ids and indptr are on {sorted(devices)}, expected one device")
        most = torch.iinfo(ids.dtype).max
        if self.width - 1 > most:
            raise ValueError(f"Codes: width is {self.width}, but {ids.dtype} ids count up to {most} alone")

    def _check_numbers(self) -> None:
        if self.indptr is not None:
            if int(self.indptr[0]) != 0 or int(self.indptr[-1]) != self.nnz:
                ends = int(self.indptr[0]), int(self.indptr[-1])
                raise ValueError(f"Codes: indptr goes from {ends[0]} to {ends[1]}, expected from 0 to {self.nnz}")
            falls = self.indptr.diff() < 0
            if bool(falls.any()):
                raise ValueError(f"Codes: indptr falls after row {int(falls.int().argmax())}, expected it to ascend")
        demand_in_range("Codes", self.ids, self.width)


def demand_in_range(name: str, ids: Tensor, width: int) -> None:
    """Raise ValueError for an id that is negative, or not below the width."""
    # Torch limits not all integers, and short ones not to what they do not reach.
    ids = ids if ids.dtype in (torch.int32, torch.int64) else ids.long()
    # Looking for the smallest and the largest takes a hundred times as long.
    if ids.numel() and (width == 0 or not torch.equal(ids.clamp(0, width - 1), ids)):
        least, most = (int(x) for x in ids.long().aminmax())
        raise ValueError(f"{name}: ids go from {least} to {most}, expected from 0 to {width - 1}")
