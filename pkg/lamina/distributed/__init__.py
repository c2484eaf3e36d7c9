"""Checkpoints of models that several processes share: each stores its shards, and the run shows them as one.

`save` stores a state with DTensors, as FSDP2 and tensor parallelism make them. `StorageWriter` and `StorageReader` are
what `torch.distributed.checkpoint` saves to and loads from.
"""

from __future__ import annotations

from lamina.distributed.reading import StorageReader
from lamina.distributed.saving import save
from lamina.distributed.writing import StorageWriter

__all__ = ["StorageReader", "StorageWriter", "save"]
