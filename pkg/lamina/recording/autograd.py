"""What autograd is doing right now: whether a backward pass runs, which one, and what is to be done when it has ended.

torch has no public names for this. Its own `torch.utils.checkpoint` and FSDP2 use the same private ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def backward_pass() -> int | None:
    """Return the number of the backward pass inside of which this code runs, None if there is none.

    A forward pass in there can only be a recomputation, as by activation checkpointing.
    """
    number = torch._C._current_graph_task_id()
    return None if number == -1 else number


def behind_backward(act: Callable[[], None]) -> None:
    """Call a function when the backward pass that runs now has ended, with all gradients in `.grad`.

    DistributedDataParallel queues what ends its averages while the pass runs. What is queued when the queue is worked
    off, behind the pass, comes after it.
    """
    engine: Any = torch.autograd.Variable._execution_engine  # pyright: ignore[reportAttributeAccessIssue]
    engine.queue_callback(lambda: engine.queue_callback(act))
