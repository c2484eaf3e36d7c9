"""Which rows of a parameter that is divided among ranks this one records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.errors import RecordingError
from lamina.modules.sharded import is_sharded

if TYPE_CHECKING:
    import torch


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
