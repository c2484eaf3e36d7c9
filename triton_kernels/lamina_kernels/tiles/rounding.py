"""Rounding rows to what tensor cores multiply, in plain torch."""

from __future__ import annotations

import torch


def round_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Return float32 numbers rounded to the nearest with 11 significant bits, as TF32 has; ties away from zero.

    Example:
        >>> import torch
        >>> round_to_tf32(torch.tensor([1 + 2**-11, 1 + 2**-12])).tolist() == [1 + 2**-10, 1.0]
        True
    """
    rounded = ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x)
