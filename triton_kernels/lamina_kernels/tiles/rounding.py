"""Rounding rows to what tensor cores multiply, in plain torch."""

from __future__ import annotations

import torch

PARTS = {"bf16x3": 2, "bf16x6": 3, "fp16x3": 2}
"""The parts of half precision that are multiplied of a float32 number, by how it is multiplied."""


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


def scaled_to_half(x: torch.Tensor, width: int, *, together: bool, parts: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Return float32 rows as float16 numbers, and the powers of 2 by which these are to be multiplied.

    The largest number of a row, or of all rows, comes to lie between 2^14 and 2^15. What is above 2^-29 of it keeps 11
    significant bits, what is below is off by 2^-40 of it at most. A second part, of what the first leaves, makes these
    23 bits, down to 2^-17 of the largest. Rows that are not finite have no say in the powers of others, and stay so.

    Args:
        x: [n, d] float32.
        width: Columns of a part, at least d; those behind are 0.
        together: Whether all rows have one power.
        parts: How many parts stand side by side.

    Returns:
        [n, parts * width] float16, and [n] float32, or [1].

    Cost:
        2 bytes a number and part, and 4 while it runs; nothing waits for a GPU.

    Example:
        >>> import torch
        >>> half, unit = scaled_to_half(torch.tensor([[3.0, 2.0**-12], [2.0**100, 0.0]]), 2, together=False)
        >>> half.tolist()
        [[24576.0, 2.0], [16384.0, 0.0]]
        >>> (half * unit[:, None]).tolist() == [[3.0, 2.0**-12], [2.0**100, 0.0]]
        True
    """
    largest = x.abs().amax(1) if x.shape[1] else x.new_zeros(len(x))
    largest = torch.where(largest.isfinite(), largest, 0)
    if together:
        largest = largest.amax(0, keepdim=True) if len(x) else x.new_zeros(1)
    # The larger ones are powers whose inverse is a normal number too.
    power = (15 - torch.frexp(largest).exponent).clamp(max=126)
    made = x.new_zeros(len(x), parts, width, dtype=torch.float16)
    rest = x * _power_of_two(power)[:, None]
    for number in range(parts):
        part = made[:, number, : x.shape[1]].copy_(rest)
        if number + 1 < parts:
            rest = rest - part
    return made.flatten(1), _power_of_two(-power)


def _power_of_two(exponents: torch.Tensor) -> torch.Tensor:
    """Return 2 to exponents from -126 to 127, to the bit."""
    return ((exponents + 127) << 23).view(torch.float32)
