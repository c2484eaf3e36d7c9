"""Models whose tensors are divided among processes: DTensors, as FSDP2 and tensor parallelism make them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def is_sharded(value: object) -> bool:
    """Whether it is a DTensor; imports nothing, for there is none before somebody else did."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def is_divided(model: nn.Module) -> bool:
    """Whether ranks hold parts of the weights."""
    return any(is_sharded(parameter) for parameter in model.parameters())


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


def load(model: nn.Module, state: dict[str, Any]) -> None:
    """Load a plain model's state into a model, whole tensors into divided ones too; then every rank has to call it."""
    if not is_divided(model):
        model.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))
