"""The form for machines without a GPU: plain torch, memory flat in the number of rows."""

from __future__ import annotations

import torch

from lamina_kernels.tiles.rows import accumulation_dtype, tiles


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
