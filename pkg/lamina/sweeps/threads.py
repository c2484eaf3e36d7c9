"""Threads that the arithmetic of a task may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

MOST_THREADS = 4
"""Threads that the arithmetic of a task has at most, unless told: more help several tasks at a time more."""


def usual_threads() -> int:
    """Return what a task has unless told: as many as torch has here, and at most 4."""
    import torch

    return min(MOST_THREADS, torch.get_num_threads())


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
