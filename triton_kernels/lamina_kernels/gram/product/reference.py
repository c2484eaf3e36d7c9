"""The obvious form: build the matrix, multiply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def linear_product(x: torch.Tensor, v: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return (X Yᵀ) V in the dtype of its arguments, with all n x m scores in memory."""
    return (x @ y.T) @ v
