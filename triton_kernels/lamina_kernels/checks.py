"""Checks of arguments that the faces of all ops share; each error names the op and the argument."""

from __future__ import annotations

from operator import index
from typing import Any

import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def whole(number: Any) -> int | None:
    """Return a whole number as an int, NumPy's and torch's too; None if it is none, or a boolean."""
    if isinstance(number, bool):
        return None
    try:
        return index(number)
    except TypeError:
        return None


def matrices(op: str, **tensors: torch.Tensor) -> None:
    """Check that the tensors are matrices of numbers that fit the first of them.

    Args:
        op: The op's public name, for the message.
        tensors: The matrices by the names that the caller gave them.

    Raises:
        TypeError: One is no tensor.
        ValueError: One has other than two dimensions, a dtype that is not float16, bfloat16, float32 or
            float64, or another dtype or device than the first.
    """
    first, like = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{op}: {name} is a {type(tensor).__name__}, expected a tensor of torch")
        if tensor.ndim != 2:
            raise ValueError(f"{op}: {name} has shape {list(tensor.shape)}, expected two dimensions")
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{op}: {name} is {tensor.dtype}, expected float16, bfloat16, float32 or float64")
        if tensor.dtype != like.dtype or tensor.device != like.device:
            raise ValueError(
                f"{op}: {name} is {tensor.dtype} on {tensor.device}, but {first} is {like.dtype} on {like.device}"
            )


def same_width(op: str, **tensors: torch.Tensor) -> None:
    """Raise ValueError unless the two matrices have equally many columns."""
    (a, first), (b, second) = tensors.items()
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{op}: {a} has width {first.shape[1]} and {b} has width {second.shape[1]}, they must agree")


def same_rows(op: str, **tensors: torch.Tensor) -> None:
    """Raise ValueError unless the two tensors have equally many rows."""
    (a, first), (b, second) = tensors.items()
    if first.shape[0] != second.shape[0]:
        raise ValueError(f"{op}: {a} has {first.shape[0]} rows and {b} has {second.shape[0]}, they must agree")
