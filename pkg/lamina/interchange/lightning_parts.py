"""Lightning's checkpoints, one mapping of everything, as parts and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODEL, OPTIMIZERS, TRAINER = "model", "optimizer", "trainer"


def is_checkpoint(state: Any) -> bool:
    """Whether Lightning wrote it."""
    return isinstance(state, Mapping) and "pytorch-lightning_version" in state


def split(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Weights as `model`, states of optimizers as `optimizer`, and all else as `trainer`."""
    rest = dict(checkpoint)
    found = {MODEL: rest.pop("state_dict", None), OPTIMIZERS: rest.pop("optimizer_states", None), TRAINER: rest}
    return {name: state for name, state in found.items() if state is not None}


def join(parts: Mapping[str, Any]) -> dict[str, Any]:
    """What `split` took apart."""
    found = dict(parts[TRAINER])
    found |= {"state_dict": parts[MODEL]} if MODEL in parts else {}
    return found | ({"optimizer_states": parts[OPTIMIZERS]} if OPTIMIZERS in parts else {})
