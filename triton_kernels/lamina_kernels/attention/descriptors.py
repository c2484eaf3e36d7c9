"""Tensors as the copy engines of Hopper and Blackwell take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from lamina_kernels.tiles.target import kind

# A copy engine reads from addresses that are multiples of this many bytes.
ALIGNMENT = 16


def described(arguments: Mapping[str, Any], tiles: Mapping[str, tuple[int, int]], target: str) -> dict[str, Any]:
    """Return what replaces rows by descriptors in the arguments of a kernel, if the target can take them all.

    Packed sequences are read by addresses: behind the end of one the next begins, which no descriptor knows.

    Args:
        arguments: What `operands.arguments` returned.
        tiles: Rows and columns of the tiles that are loaded of each tensor, by its name.
        target: What the kernel is compiled for.
    """
    if not takes_descriptors(target) or arguments["cu_seqlens_q"] is not None:
        return {"DESCRIPTORS": False}
    if not all(map(_fits, (arguments[name] for name in tiles))):
        return {"DESCRIPTORS": False}
    made = {name: _descriptor(arguments[name], rows, columns) for name, (rows, columns) in tiles.items()}
    return {**made, "DESCRIPTORS": True}


def takes_descriptors(target: str) -> bool:
    """Return whether kernels for a target load tiles by descriptors."""
    return kind(target) in ("hopper", "blackwell")


def _fits(tensor: torch.Tensor) -> bool:
    """Return whether a copy engine can read a [B, H, N, D] tensor."""
    size = tensor.element_size()
    steps = [stride * size for length, stride in zip(tensor.shape[:3], tensor.stride()[:3], strict=True) if length > 1]
    aligned = all(step > 0 and step % ALIGNMENT == 0 for step in steps)
    return aligned and tensor.stride(3) == 1 and tensor.data_ptr() % ALIGNMENT == 0 and tensor.numel() > 0


def _descriptor(tensor: torch.Tensor, rows: int, columns: int) -> TensorDescriptor:
    # The stride of a dimension of length 1 may be anything, which a copy engine does not know.
    strides = [
        stride if length > 1 else ALIGNMENT for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    return TensorDescriptor(tensor, list(tensor.shape), [*strides[:3], 1], [1, 1, rows, columns])
