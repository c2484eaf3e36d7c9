"""Shards on their way into a run, and the checkpoint that is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamina.errors import SchemaError
from lamina.runs.buffers import Flat
from lamina.runs.divided import StoredShard
from lamina.runs.tree import Flattened

if TYPE_CHECKING:
    from lamina import _core
    from lamina._core import Ticket


class Staged:
    """The shards of one process for one checkpoint. Nobody sees them before `complete`, by whatever process."""

    def __init__(self, core: _core.Writer) -> None:
        core.check()
        self._core = core
        self.condemned = core.condemned()
        """How many files were condemned before the first shard: what was condemned later may be needed again."""
        self._shards: list[_core.Shard] = []
        self._ticket: Ticket | None = None

    def add(self, name: str, flat: Flat) -> None:
        """Stage a shard; waits for room in the writer's queue."""
        self._ticket, shard = self._core.shard((name, flat.dtype, flat.shape, flat.bytes))
        self._shards.append(shard)

    def keys(self) -> list[bytes]:
        """The chunks of every shard in order of staging, when all are durable."""
        if self._ticket is not None:
            self._ticket.wait()
        return [shard.keys() for shard in self._shards]


def complete(core: _core.Writer, pieces: Mapping[str, Flattened], step: int, condemned: int) -> Ticket:
    """Stage a checkpoint of states in which `Divided` stand for tensors; what else they hold is stored here.

    Args:
        core: The writer.
        pieces: The states by part, taken apart.
        step: The step.
        condemned: The least `Staged.condemned` of those who stored its shards.
    """
    own = Staged(core)
    for taken in pieces.values():
        for name, tensor in zip(taken.names, taken.tensors, strict=True):
            if isinstance(tensor, Flat):
                own.add(name, tensor)
    keys = iter(own.keys())
    made = []
    for part, taken in pieces.items():
        wholes = []
        for name, tensor in zip(taken.names, taken.tensors, strict=True):
            if isinstance(tensor, Flat):
                shards: Sequence[StoredShard] = [StoredShard((0,) * len(tensor.shape), tensor.shape, next(keys))]
            else:
                shards = tensor.shards
            wholes.append((name, tensor.dtype, tensor.shape, [tuple(shard) for shard in shards]))
        made.append((part, taken.tree, taken.scalars, wholes))
    return core.complete(step, min(condemned, own.condemned), made)


def check_parts(parts: Mapping[str, Any]) -> None:
    """Raise SchemaError if there is none, or one has no name."""
    if not parts:
        raise SchemaError("a checkpoint needs at least one part", hint='for example {"model": model.state_dict()}')
    for name in parts:
        if not isinstance(name, str) or not name:
            raise SchemaError(f"a checkpoint's part is named {name!r}", hint="the names of parts are texts")
