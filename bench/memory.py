"""The memory that one call adds at its peak, by the device's own account.

A peer's environment runs this file too: it needs nothing beyond the standard library, and torch only for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def added(function: Callable[[], Any], device: str) -> int:
    """Call the function once and return by how many bytes memory rose above what was there before.

    On the CPU that is the kernel's high-water mark of this process, VmHWM, started anew for the call: run it
    in a process of its own. On a GPU it is the peak of torch's allocator.
    """
    if device.startswith("cuda"):
        return _on_cuda(function)
    # 5 sets VmHWM back to what is resident now; without that right, the mark of the program's start stays in it.
    try:
        _RESET.write_text("5")
    except OSError:
        pass
    before = _status("VmRSS")
    function()
    return max(0, _status("VmHWM") - before)


def _on_cuda(function: Callable[[], Any]) -> int:
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _status(key: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
