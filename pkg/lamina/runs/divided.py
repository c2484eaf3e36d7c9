"""A tensor that processes share: each has stored its shards, and a checkpoint is made of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class StoredShard(NamedTuple):
    """A box of a tensor whose chunks are durable."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    keys: bytes


class Divided(NamedTuple):
    """Stands for a tensor in a state that is taken apart."""

    dtype: str
    shape: tuple[int, ...]
    shards: Sequence[StoredShard]
