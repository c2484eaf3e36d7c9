"""Parameters as sites: their values, gradients and updates, and what the optimizer keeps of them.

A row is a unit: an entry of the first dimension, whose number is the row's `position`. Value and optimizer state of
step s are those after s updates, taken when the step begins; gradient and update are those of the optimizer's step
in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import UninitializedParameter

from lamina.errors import RecordingError
from lamina.recording.captured import Collector
from lamina.recording.resolve import parameters
from lamina.recording.sites import ParameterSite

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class ParameterTap:
    """One site of a parameter; `armed` while it is due."""

    def __init__(self, site: ParameterSite, parameter: nn.Parameter) -> None:
        self.site = site
        self.parameter = parameter
        self.armed = False
        self.before: torch.Tensor | None = None
        self.expected = True
        """False while there is nothing to take: an optimizer has no state before its first step."""


class ParameterTaps:
    """The taps of parameters of one recorder."""

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[ParameterSite],
        collector: Collector,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        found = dict(parameters(model))
        self.taps = [ParameterTap(site, found[site.parameter]) for site in sites]
        self._collector = collector
        self._optimizer = optimizer
        self._handles: list[RemovableHandle] = []
        for tap in self.taps:
            if isinstance(tap.parameter, UninitializedParameter):
                raise RecordingError(
                    f"the parameter {tap.site.parameter!r} has no shape yet", hint="run the model on one batch first"
                )

    def attach(self) -> None:
        """Watch the optimizer's steps."""
        if self.taps and self._optimizer is not None:
            self._handles = [
                self._optimizer.register_step_pre_hook(lambda *_: self._before_update()),
                self._optimizer.register_step_post_hook(lambda *_: self._after_update()),
            ]

    def detach(self) -> None:
        """Watch them no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self) -> None:
        """Take the values and states of the taps that are armed."""
        for tap in self._armed():
            if tap.site.what is None:
                self._take(tap, tap.parameter)
            elif tap.site.what not in ("grad", "update"):
                self._take_state(tap, tap.site.what)

    def end(self) -> None:
        """Take the gradients of the taps that are armed, if no optimizer is known; disarm all."""
        if self._optimizer is None:
            self._take_gradients()
        self.disarm()

    def disarm(self) -> None:
        """Make all taps idle."""
        for tap in self.taps:
            tap.armed, tap.before = False, None

    def _armed(self) -> list[ParameterTap]:
        return [tap for tap in self.taps if tap.armed]

    def _before_update(self) -> None:
        self._take_gradients()
        for tap in self._armed():
            if tap.site.what == "update":
                tap.before = tap.parameter.detach().clone()

    def _after_update(self) -> None:
        for tap in self._armed():
            if tap.before is not None:
                self._take(tap, tap.parameter.detach() - tap.before)
                tap.before = None

    def _take_gradients(self) -> None:
        for tap in self._armed():
            if tap.site.what == "grad" and tap.parameter.grad is not None:
                self._take(tap, tap.parameter.grad)

    def _take_state(self, tap: ParameterTap, key: str) -> None:
        assert self._optimizer is not None
        state = self._optimizer.state.get(tap.parameter, {})
        tap.expected = bool(state)
        if state and key not in state:
            raise RecordingError(
                f"the optimizer keeps no {key!r} of {tap.site.parameter!r}",
                hint=f"it keeps {', '.join(map(str, state))}",
            )
        if state:
            self._take(tap, torch.as_tensor(state[key]))

    def _take(self, tap: ParameterTap, value: torch.Tensor) -> None:
        local, start = _shard(value)
        self._collector.take_units(tap.site.name, local, tap.site.options, start=start)


def _shard(value: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return the part of a sharded tensor that this rank holds, and the number of its first row."""
    local = getattr(value, "to_local", None)
    if local is None:
        return value, 0
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    assert isinstance(value, DTensor)
    _, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
    if any(offset[1:]):
        raise RecordingError("a parameter that is sharded along another dimension than the first cannot be recorded")
    return local(), offset[0] if offset else 0
