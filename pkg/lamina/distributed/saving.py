"""Saving states with DTensors without a plan: their placements say which process has what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from lamina.distributed.staged import Staged, check_parts, complete
from lamina.errors import LaminaError, SchemaError
from lamina.runs.buffers import flatten, name_of_torch
from lamina.runs.divided import Divided, StoredShard
from lamina.runs.steps import recorded_step
from lamina.runs.tree import Flattened, take_apart

if TYPE_CHECKING:
    from lamina._core import Ticket
    from lamina.runs import Writer


class _Told(NamedTuple):
    """What a process tells the first of what it stored: by a tensor's place among the divided ones."""

    condemned: int
    shards: list[tuple[int, StoredShard]]
    names: str


def save(
    writer: Writer, parts: Mapping[str, Any], *, step: int, group: dist.ProcessGroup | None = None
) -> Ticket | None:
    """Save a state that processes share; all of them call this, each with its own writer.

    Each stores the shards that it has of DTensors, so that no process ever holds a whole tensor of another. Everything
    else is stored by the first process, exactly as `Writer.save` would. The checkpoint is there when the first process
    has stored it: whole, or not at all.

    Args:
        writer: This process's writer.
        parts: Named states, alike on all processes but for what DTensors hold.
        step: The step whose state it is.
        group: The processes; None are all. It has to be one for tensors on the CPU.

    Returns:
        On the first process a ticket: of the checkpoint. None on the others.

    Raises:
        SchemaError: A state holds what a checkpoint cannot, on some process.
        LaminaError: Another process failed; nothing was saved.

    Cost:
        Blocks until all shards are durable.
    """
    told: _Told | Exception
    pieces: dict[str, Flattened] = {}
    shards = None
    try:
        step = recorded_step(step)
        check_parts(parts)
        shards = _Shards(Staged(writer._core))
        pieces = {name: take_apart(state, divide=shards.divide) for name, state in parts.items()}
        told = shards.tell()
    except Exception as error:
        told = error
    is_first = dist.get_rank(group) == 0
    everybody: list[Any] | None = [None] * dist.get_world_size(group) if is_first else None
    dist.gather_object(told, everybody, group=group, group_dst=0)
    ticket, outcome = None, [None]
    if everybody is not None:
        try:
            assert shards is not None or isinstance(told, Exception)
            ticket = _finish(writer, pieces, shards, everybody, step)
        except Exception as error:
            outcome = [error]
    dist.broadcast_object_list(outcome, group=group, group_src=0)
    if isinstance(told, Exception):
        raise told
    if outcome[0] is not None:
        raise outcome[0]
    return ticket


class _Shards:
    """What this process has of the divided tensors of a state, staged as they are come upon."""

    def __init__(self, staged: Staged) -> None:
        self._staged = staged
        self._own: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self._names = hashlib.sha256()
        self.divided: list[Divided] = []

    def divide(self, tensor: DTensor, path: str) -> Divided:
        """Stage this process's shard of a tensor; all processes come upon the same tensors in the same order."""
        if (dtype := name_of_torch(tensor.dtype)) is None:
            raise SchemaError(f"tensor {path!r} has the dtype {tensor.dtype}, which has no name on disk")
        self.divided.append(Divided(dtype, tuple(tensor.shape), []))
        self._names.update(f"{path}\0{dtype}{tuple(tensor.shape)}\0".encode())
        if (shard := _own_shard(tensor)) is not None:
            local, offsets = shard
            self._own.append((len(self.divided) - 1, offsets, tuple(local.shape)))
            self._staged.add(path, flatten(local, f"tensor {path!r}"))
        return self.divided[-1]

    def tell(self) -> _Told:
        """What the first process has to know, when all of it is durable."""
        keys = self._staged.keys()
        own = zip(self._own, keys, strict=True)
        shards = [(at, StoredShard(offsets, sizes, key)) for (at, offsets, sizes), key in own]
        return _Told(self._staged.condemned, shards, self._names.hexdigest())


def _own_shard(tensor: DTensor) -> tuple[torch.Tensor, tuple[int, ...]] | None:
    """Return what this process stores of a tensor, and where it begins; of replicas the first one stores it."""
    mesh = tensor.device_mesh
    # not `isinstance`: strided shards hold rows that do not follow each other
    if not all(type(placement) in (Replicate, Shard) for placement in tensor.placements):
        whole = tensor.full_tensor()
        return (whole, (0,) * whole.dim()) if mesh.get_rank() == int(mesh.mesh.flatten()[0]) else None
    coordinate = mesh.get_coordinate()
    if coordinate is None or any(
        at > 0 and placement.is_replicate() for at, placement in zip(coordinate, tensor.placements, strict=True)
    ):
        return None
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, tensor.placements)
    local = tensor.to_local()
    return (local, tuple(offsets)) if local.numel() else None


def _finish(
    writer: Writer, pieces: Mapping[str, Flattened], shards: _Shards | None, everybody: list[Any], step: int
) -> Ticket:
    """Stage the checkpoint when all have told what they stored."""
    for rank, told in enumerate(everybody):
        if isinstance(told, Exception):
            raise LaminaError(f"process {rank} could not save its part of step {step}: {told}") from told
    assert shards is not None
    if len({told.names for told in everybody}) > 1:
        raise SchemaError(
            "the processes would save different tensors", hint="give alike states, of the same model, on all of them"
        )
    for at, shard in (item for told in everybody for item in told.shards):
        held = shards.divided[at].shards
        assert isinstance(held, list)
        held.append(shard)
    return complete(writer._core, pieces, step, min(told.condemned for told in everybody))
