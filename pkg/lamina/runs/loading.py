"""Loading checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from lamina.errors import DamagedError
from lamina.runs.buffers import empty_tensor
from lamina.runs.rebuilt import put_together
from lamina.runs.saved import Saved, SavedPart
from lamina.runs.stored import available_threads

if TYPE_CHECKING:
    import torch


def load(saved: Saved, step: int | Literal["last"], part: str | None) -> Any:
    """The state as saved, on the CPU; with `part=None`, a dict of all parts."""
    parts = saved.at(step, part)
    loaded = {name: _load_part(saved, one) for name, one in parts.items()}
    return loaded if part is None else loaded[part]


def _load_part(saved: Saved, part: SavedPart) -> Any:
    tree, scalars, log = saved.snapshot.part(part.step, part.name)
    tensors = _read(saved, part)
    try:
        return put_together(tree, scalars, tensors)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedError(f"the state of part {part.name!r} at step {part.step} is not understood", log) from error


def _read(saved: Saved, part: SavedPart) -> list[torch.Tensor]:
    made = [empty_tensor(tensor.dtype, tuple(tensor.shape)) for tensor in saved.tensors(part)]
    wanted = [(part.step, at, 0, data) for at, (_, data) in enumerate(made)]
    for _, error in saved.snapshot.stretches(part.name, wanted, available_threads()):
        raise error
    return [tensor for tensor, _ in made]
