"""Memory for results that is used again once nobody sees it any more.

The first touch of fresh memory costs a page fault every 4 KiB, several times what it costs to fill it. A tensor made
here holds an array that nobody else holds. The array lives exactly as long as the tensor's storage: as long as any
tensor or array shares that memory. When it goes, and not before, the memory comes back.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

SMALLEST = 1 << 20
"""Results below this many bytes are not worth keeping: the allocator has such memory at hand."""

KEPT_BYTES = 128 << 20
"""Most bytes that are kept while nobody uses them."""

KEPT = 4
"""Most results that are kept while nobody uses them."""

# appending to and popping from a deque needs no lock, so that memory may come back in the middle of anything
_free: deque[np.ndarray] = deque()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Return an uninitialised CPU tensor, in memory that was used before if some is at hand."""
    import torch

    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    memory = _take(size)
    lent = memory.view()
    weakref.finalize(lent, _give_back, memory).atexit = False
    return torch.from_numpy(lent)[:size].view(dtype).view(shape)


def _take(size: int) -> np.ndarray:
    for _ in range(len(_free)):
        try:
            memory = _free.popleft()
        except IndexError:
            break
        if size <= memory.size <= 2 * size:
            return memory
        _free.append(memory)
    return np.empty(size, dtype=np.uint8)


def _give_back(memory: np.ndarray) -> None:
    _free.append(memory)
    try:
        while len(_free) > KEPT or sum(kept.size for kept in list(_free)) > KEPT_BYTES:
            _free.popleft()
    except (IndexError, RuntimeError):
        pass  # somebody took or gave at the same time, and then looks too
