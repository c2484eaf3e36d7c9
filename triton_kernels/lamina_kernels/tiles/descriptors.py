"""Tensors as the copy engines of Hopper and Blackwell take them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import kind

ALIGNMENT = 16
"""A copy engine reads from addresses that are multiples of this many bytes."""
LONGEST = 2**31 - 1
"""Numbers of a dimension, which descriptors and the coordinates of tiles count in 32 bits."""
FARTHEST = 2**40
"""Bytes from one row to the next, and further."""


def described(arguments: Mapping[str, Any], tiles: Mapping[str, tuple[int, int]], target: str) -> dict[str, Any]:
    """Return what replaces rows by descriptors in the arguments of a kernel, if the target can take them all.

    Args:
        arguments: Tensors [..., rows, width] by name, beside whatever else a kernel takes.
        tiles: Rows and columns of the tiles that are loaded of each tensor, by its name; a program loads them from
            [..., row, column] and gets 0 for what lies outside.
        target: What the kernel is compiled for.

    Returns:
        The descriptors by name, and whether there are any: "DESCRIPTORS".
    """
    if not takes_descriptors(target) or not fit(arguments[name] for name in tiles):
        return {"DESCRIPTORS": False}
    made = {name: _descriptor(arguments[name], rows, columns) for name, (rows, columns) in tiles.items()}
    return {**made, "DESCRIPTORS": True}


def aligned(rows: torch.Tensor) -> torch.Tensor:
    """Return [n, width] rows as copy engines take them, a copy with wider strides if need be."""
    if _fits(rows) or rows.numel() == 0:
        return rows
    step = ALIGNMENT // rows.element_size()
    return rows.new_empty(len(rows), ceil_div(rows.shape[1], step) * step)[:, : rows.shape[1]].copy_(rows)


def fit(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether copy engines take tiles of all these tensors."""
    return all(map(_fits, tensors))


def takes_descriptors(target: str) -> bool:
    """Return whether kernels for a target load tiles by descriptors."""
    return kind(target) in ("hopper", "blackwell")


def _fits(tensor: torch.Tensor) -> bool:
    """Return whether a copy engine can read a tensor, which may hold more than 2³¹ numbers in all."""
    size = tensor.element_size()
    steps = [
        stride * size for length, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True) if length > 1
    ]
    reachable = all(0 < step < FARTHEST and step % ALIGNMENT == 0 for step in steps)
    contiguous = tensor.stride(-1) == 1 and tensor.data_ptr() % ALIGNMENT == 0
    return reachable and contiguous and tensor.numel() > 0 and max(tensor.shape) <= LONGEST


def _descriptor(tensor: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    # The stride of a dimension of length 1 may be anything, which a copy engine does not know.
    strides = [
        stride if length > 1 else ALIGNMENT for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    block = [1] * (tensor.ndim - 2) + [rows, columns]
    return TensorDescriptor(tensor, list(tensor.shape), [*strides[:-1], 1], block)
