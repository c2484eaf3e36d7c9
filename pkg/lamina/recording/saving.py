"""Checkpoints of a model and its optimizer, also of a model that several ranks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.modules.sharded import is_divided, put_together
from lamina.recording.lazy import check_shapes
from lamina.recording.ranks import own_rank

if TYPE_CHECKING:
    from torch import nn

    from lamina.recording.flight import Stateful
    from lamina.recording.guarded import GuardedWriter
    from lamina.runs import Writer


def save(
    writer: GuardedWriter | Writer, model: nn.Module, holders: Mapping[str, Stateful], step: int, *, replicated: bool
) -> None:
    """Save a checkpoint of what has a state: its parts by name.

    Where ranks share one model (DistributedDataParallel, FSDP2, tensor parallelism) rank 0 saves it, with the tensors
    whole; all ranks have to call this. Models that have nothing to do with each other are saved by each rank.

    Args:
        writer: Where to write.
        model: The model.
        holders: What has a state, by the name of its part.
        step: The checkpoint's.
        replicated: Whether every rank holds the same weights.

    Raises:
        RecordingError: A parameter has no shape yet.
    """
    check_shapes(model, "a checkpoint")
    divided = is_divided(model)
    keeps = own_rank() in (None, 0) or not (divided or replicated)
    if not (keeps or divided):
        return
    parts: dict[str, Any] = {name: one.state_dict() for name, one in holders.items()}
    parts = put_together(parts, keep=keeps) if divided else parts
    if keeps:
        writer.save(parts, step=step)
