"""Models whose shapes are not known before their first batch (`torch.nn.LazyLinear` and its like)."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from torch.nn.parameter import is_lazy

from lamina.errors import RecordingError

if TYPE_CHECKING:
    from torch import nn


def check_shapes(model: nn.Module, what: str) -> None:
    """Raise RecordingError if a parameter or a buffer has no shape yet.

    A pass of the recorder's own would give it one, and draw its weights: the training would not be the same.
    """
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise RecordingError(
                f"{what} of a model whose {name!r} has no shape yet", hint="run the model on one batch first"
            )
