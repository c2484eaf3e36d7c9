"""Which process of a distributed training this is."""

from __future__ import annotations

import torch.distributed


def own_rank() -> int | None:
    """Return this process's rank, None where nothing is distributed. Rows carry it as their column `rank`."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return None
