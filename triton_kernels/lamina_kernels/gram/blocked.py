"""The form for machines without a GPU: plain torch, memory flat in the number of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch


def linear_product(x: torch.Tensor, v: torch.Tensor, y: torch.Tensor, *, block: int) -> torch.Tensor:
    """Return (X Yᵀ) V as X (Yᵀ V), a tile of rows at a time.

    The linear kernel has a feature map, the identity, so the product associates: Yᵀ V is only d x k. It is
    summed over tiles of `block` rows of Y and V, each converted to the accumulation dtype before it is
    multiplied; then tiles of X are multiplied with the sum, and only their products are rounded to the
    dtype of X. Beside the result, memory holds one tile and the sum.
    """
    dtype = accumulation_dtype(x.dtype)
    moment = torch.zeros(y.shape[1], v.shape[1], dtype=dtype, device=x.device)
    for rows in tiles(y.shape[0], block):
        moment = torch.addmm(moment, y[rows].to(dtype).T, v[rows].to(dtype))
    product = x.new_empty(x.shape[0], v.shape[1])
    for rows in tiles(x.shape[0], block):
        product[rows] = (x[rows].to(dtype) @ moment).to(x.dtype)
    return product


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums over rows are kept in: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def tiles(rows: int, block: int) -> Iterator[slice]:
    """Cut `rows` rows into consecutive slices of `block`; the last may be shorter."""
    return (slice(start, min(start + block, rows)) for start in range(0, rows, block))
