"""A batch's active entries, as all states take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.interchange import from_dense


class Observed(NamedTuple):
    """The entries of a batch that are not 0, in the order of their rows.

    Attributes:
        rows: How many rows there are.
        row: [s] int64, the row of each entry.
        unit: [s] int64.
        value: [s] float64.
    """

    rows: int
    row: Tensor
    unit: Tensor
    value: Tensor


def observed(name: str, batch: Codes | Tensor, width: int) -> Observed:
    """Return the entries of codes, or of a dense matrix [n, width].

    Raises:
        ValueError: Another width, or values that are not finite: they would be the largest, or spoil a sum.
    """
    codes = batch if isinstance(batch, Codes) else from_dense(batch.detach())
    if codes.width != width:
        raise ValueError(f"{name}: a batch has {codes.width} units, expected {width}")
    value = codes.values.detach().flatten().double()
    broken = int((~value.isfinite()).sum())
    if broken:
        raise ValueError(f"{name}: {broken} values of a batch are not finite")
    active = value != 0
    return Observed(len(codes), codes.row_ids()[active], codes.ids.flatten()[active].long(), value[active])


def demand_like(name: str, fits: bool) -> None:
    """Raise ValueError unless two states fit together."""
    if not fits:
        raise ValueError(f"{name}: states of other options cannot be merged")


def sums(at: Tensor, numbers: Tensor, length: int) -> Tensor:
    """Return the sums of the numbers at each place, [length]; on a CPU always in the same order."""
    return numbers.new_zeros(length).index_add(0, at, numbers)
