"""Rounding rows to what tensor cores multiply, in plain torch."""

from __future__ import annotations

import torch

PARTS = {"bf16x3": 2, "bf16x6": 3}
"""The bfloat16 parts that are multiplied of a float32 number, by how it is multiplied."""


def round_to_tf32(x: torch.Tensor) -> torch.Tensor:
    """Return float32 numbers rounded to the nearest with 11 significant bits, as TF32 has; ties away from zero.

    Example:
        >>> import torch
        >>> round_to_tf32(torch.tensor([1 + 2**-11, 1 + 2**-12])).tolist() == [1 + 2**-10, 1.0]
        True
    """
    rounded = ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x)


def parts_of(x: torch.Tensor, parts: int, width: int) -> torch.Tensor:
    """Return float32 rows as bfloat16 numbers whose sums they are, [n, parts * width], parts side by side.

    Each part is what those before it leave of a number, rounded to 8 bits: three parts are the number, two its first 16
    bits. What is not finite has parts that are not.

    Args:
        x: [n, d] float32.
        parts: How many.
        width: Columns of a part, at least d; those behind are 0.

    Cost:
        2 bytes a number and part.

    Example:
        >>> import torch
        >>> parts_of(torch.tensor([[2.0**20 + 2**10 + 1, -3.0]]), 3, 2).tolist()
        [[1048576.0, -3.0, 1024.0, 0.0, 1.0, 0.0]]
    """
    made = x.new_empty(len(x), parts, width, dtype=torch.bfloat16)
    made[:, :, x.shape[1] :] = 0
    rest = x
    for number in range(parts):
        part = made[:, number, : x.shape[1]].copy_(rest)
        if number + 1 < parts:
            rest = rest - part
    return made.flatten(1)
