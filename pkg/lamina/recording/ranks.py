"""Which process of a distributed training this is, and what it has in common with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from torch import nn


def own_rank() -> int | None:
    """Return this process's rank, None where nothing is distributed. Rows carry it as their column `rank`."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return None


def world_size() -> int:
    """Return how many processes there are, 1 where nothing is distributed."""
    return 1 if own_rank() is None else torch.distributed.get_world_size()


def is_replicated(model: nn.Module) -> bool:
    """Whether every rank holds the same weights, kept equal by DistributedDataParallel."""
    return any(isinstance(module, DistributedDataParallel) for module in model.modules())
