"""The k-th largest of many numbers by histograms of their digits: no sort, and no number is looked at in vain."""

from __future__ import annotations

import torch
from torch import Tensor

DIGIT = 16
"""Bits of a digit: two digits are a number in single precision."""


def kth_largest(values: Tensor, k: int) -> Tensor:
    """Return the k-th largest of numbers [s], none of which is NaN.

    A histogram of the first digit of all tells which digit the k-th has; the next is made of those with this digit.

    Args:
        values: float32 or float64.
        k: From 1 to s.

    Example:
        >>> import torch
        >>> kth_largest(torch.tensor([3.0, -1.0, 2.5, 2.5, -torch.inf]), 3)
        tensor(2.5000)
    """
    bits = 8 * values.element_size()
    integers = torch.int32 if bits == 32 else torch.int64
    found = values.view(integers)
    # As integers, negative numbers stand in the wrong order.
    keys = torch.where(found < 0, found ^ torch.iinfo(integers).max, found)
    for shift in range(bits - DIGIT, -1, -DIGIT):
        digits = (keys >> shift) & (2**DIGIT - 1)
        if shift == bits - DIGIT:
            # Of the first digit one bit is the sign.
            digits = digits ^ 2 ** (DIGIT - 1)
        counts = digits.bincount(minlength=2**DIGIT)
        reaching = counts.flip(0).cumsum(0)
        digit = 2**DIGIT - 1 - int((reaching < k).sum())
        k -= int(reaching[2**DIGIT - 2 - digit]) if digit < 2**DIGIT - 1 else 0
        keys = keys[digits == digit]
    key = keys[0]
    return torch.where(key < 0, key ^ torch.iinfo(integers).max, key).view(values.dtype)
