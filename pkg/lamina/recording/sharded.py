"""Tensors that are divided among the processes of a training: DTensors, as FSDP2 and tensor parallelism make them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.errors import RecordingError

if TYPE_CHECKING:
    import torch
    from torch import nn


def is_sharded(value: object) -> bool:
    """Whether it is a DTensor; imports nothing, for there is none before somebody else did."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def check_rows(name: str, value: torch.Tensor) -> None:
    """Raise RecordingError if a tensor is divided in another way than by its rows: alike on every rank."""
    if not is_sharded(value):
        return
    from torch.distributed.tensor import DTensor, Replicate, Shard

    assert isinstance(value, DTensor)
    for placement in value.placements:
        # Not `isinstance`: strided shards hold rows that do not follow each other.
        if not (type(placement) is Replicate or (type(placement) is Shard and placement.dim == 0)):
            raise RecordingError(
                f"the parameter {name!r} is divided among ranks as {placement}, and its rows are entries of the first "
                "dimension",
                hint="ranks record whole rows alone; checkpoints hold all of it",
            )


def own_rows(value: torch.Tensor) -> tuple[torch.Tensor, int] | None:
    """Return the rows of a tensor that this rank has to record, and the number of the first.

    Of rows that several ranks hold, the first of these ranks records them. None if there is nothing to record.
    """
    if not is_sharded(value):
        return value, 0
    from torch.distributed.tensor import DTensor

    # What is public tells this rank's shape, and not where its rows stand in the whole.
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(value, DTensor)
    mesh = value.device_mesh
    coordinate = mesh.get_coordinate()
    if coordinate is None or any(
        at > 0 and placement.is_replicate() for at, placement in zip(coordinate, value.placements, strict=True)
    ):
        return None
    local = value.to_local()
    if local.numel() == 0:
        return None
    _, offset = compute_local_shape_and_global_offset(value.shape, mesh, value.placements)
    return local, offset[0] if offset else 0


def put_together(state: Any, *, keep: bool) -> Any:
    """Return a nested state with whole tensors in place of divided ones; every rank has to call it.

    Args:
        state: Mappings, lists and tuples of tensors and other things.
        keep: Whether this rank needs the result; None stands in place of divided tensors where it does not.

    Cost: one tensor is put together at a time; a rank that keeps them has them all on the CPU.
    """
    if is_sharded(state):
        whole = state.full_tensor()
        return whole.detach().cpu() if keep else None
    if isinstance(state, Mapping):
        return {key: put_together(value, keep=keep) for key, value in state.items()}
    if type(state) in (list, tuple):
        return type(state)(put_together(value, keep=keep) for value in state)
    return state


def reshard(model: nn.Module) -> None:
    """Let go of the whole parameters that FSDP2 keeps after a forward pass: they do not follow the optimizer."""
    if "torch.distributed.fsdp" not in sys.modules:
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
