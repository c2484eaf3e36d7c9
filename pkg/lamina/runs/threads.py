"""How many threads the core may take."""

from __future__ import annotations

import os
import sys


def available_threads() -> int:
    """How many threads torch would take; without torch, as many as this process may run on."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else len(os.sched_getaffinity(0))
