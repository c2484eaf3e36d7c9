"""Knowing when a backward pass has ended, and what each one gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from lamina.recording.autograd import backward_pass, behind_backward

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class Backwards:
    """While armed, calls functions for the gradients that backward passes bring, and behind each pass.

    Hooks on parameters come and go with `arm` and `disarm`: compiled code does not contain them, so nothing is compiled
    anew.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        arrived: Callable[[nn.Parameter, torch.Tensor], None] | None,
        ended: Callable[[], None] | None,
    ) -> None:
        """Make it.

        Args:
            parameters: Whose gradients.
            arrived: Gets each parameter and its gradient of this pass, before it is added to what was there and before
                ranks are averaged.
            ended: Called when a pass has left its gradients in `.grad`, averaged over ranks.
        """
        self._parameters = list(parameters)
        self._arrived = arrived
        self._ended = ended
        self._handles: list[RemovableHandle] = []
        self._pass: int | None = None

    def arm(self) -> None:
        """Watch."""
        for parameter in self._parameters:
            if not parameter.requires_grad:
                continue
            if self._arrived is not None:
                self._handles.append(parameter.register_hook(partial(self._arrived, parameter)))
            if self._ended is not None:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._reached))

    def disarm(self) -> None:
        """Watch no more."""
        while self._handles:
            self._handles.pop().remove()

    def _reached(self, parameter: torch.Tensor) -> None:
        assert self._ended is not None
        number = backward_pass()
        if number != self._pass:
            self._pass = number
            behind_backward(self._ended)
