"""Memory of a writer for what its own staging cannot copy as it lies: it is put in order here, and stored from here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lamina import _core

if TYPE_CHECKING:
    import torch

    from lamina._core import Memory

LARGE = 2**18
"""Bytes from which it is worth it: less stays in the caches, where a second copy costs next to nothing."""


class Staging:
    """Memory that is lent to a writer, and used again once it is written. Thread-safe.

    What comes from a GPU is copied into pinned memory, which the GPU writes to by itself.
    """

    def __init__(self) -> None:
        self._memory = _core.Pool()
        self._pinned = _core.Pool(pinned)

    def of_tensor(self, tensor: torch.Tensor) -> Memory:
        """The elements of a tensor in order: one copy, from any strides and device."""
        import torch

        pool = self._pinned if is_remote(tensor) else self._memory
        memory = pool.take(tensor.nbytes)
        torch.frombuffer(memory, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)
        return memory

    def of_array(self, array: np.ndarray, dtype: np.dtype) -> Memory:
        """The elements of an array in order, and in this dtype: one copy."""
        memory = self._memory.take(array.size * dtype.itemsize)
        np.copyto(np.asarray(memory).view(dtype).reshape(array.shape), array)
        return memory

    def of_rows(self, data: np.ndarray, keep: np.ndarray) -> Memory:
        """Some of the rows that lie one behind the other: one copy."""
        at = np.flatnonzero(keep)
        rows = data.reshape(keep.size, -1)
        memory = self._memory.take(at.size * rows.shape[1])
        # with "raise" NumPy would copy once more, to have nothing changed if it does
        np.take(rows, at, axis=0, out=np.asarray(memory).reshape(at.size, -1), mode="clip")
        return memory


def is_remote(tensor: torch.Tensor) -> bool:
    """Whether the CPU cannot read it."""
    return tensor.is_cuda


def pinned(size: int) -> np.ndarray:
    """Memory that stays in its place, so that a GPU can write to it; where there is no more, any memory."""
    import torch

    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    except RuntimeError:
        return np.empty(size, dtype=np.uint8)
