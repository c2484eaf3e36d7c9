"""How long one call takes, by the clock of the device that does the work.

A peer's environment runs this file too: it needs nothing beyond the standard library, and torch only for a GPU.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

REPETITION = 0.02
"""Seconds that a repetition lasts at least: a call that is shorter is made several times in it."""

FLUSH_BYTES = 2**28
"""More than the L2 cache of any GPU: zeroing it between calls leaves nothing of the last one in the cache."""


def timed(function: Callable[[], Any], device: str) -> Callable[[], float]:
    """Make a function that lasts one repetition and returns the seconds of one call.

    Before its first use it makes a call that is not counted, which compiles, allocates and fills caches. On the
    CPU the calls stand back to back and their mean counts. On a GPU each stands between two events behind a
    flush of the L2 cache, and the median counts: the host queues the next call while the device works, so that
    launching is not timed unless it is slower.
    """
    warm = False

    def repetition() -> float:
        nonlocal warm
        if not warm:
            function()
            warm = True
        return _on_cuda(function) if device.startswith("cuda") else _on_cpu(function)

    return repetition


def _on_cpu(function: Callable[[], Any]) -> float:
    start, calls, took = perf_counter(), 0, 0.0
    while took < REPETITION:
        function()
        calls += 1
        took = perf_counter() - start
    return took / calls


def _on_cuda(function: Callable[[], Any]) -> float:
    import torch

    cache = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def milliseconds(calls: int) -> list[float]:
        events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
        for start, end in events:
            cache.zero_()
            start.record()
            function()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in events]

    # The first tells how many more the repetition holds.
    measured = milliseconds(1)
    more = min(1000, math.ceil(1e3 * REPETITION / max(measured[0], 1e-6)) - 1)
    return statistics.median(measured + milliseconds(more)) / 1e3
