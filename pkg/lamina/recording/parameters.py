"""Parameters as sites: their values, gradients and updates, and what the optimizer keeps of them.

A row is a unit: an entry of the first dimension, whose number is the row's `position`. Value and optimizer state of
step s are those after s updates, taken when the step begins; gradient and update are those of the optimizer's step
in it. Of a parameter that is divided among ranks, each records its own rows; what all ranks hold, rank 0 records.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from lamina.errors import RecordingError
from lamina.modules.sharded import is_sharded, reshard
from lamina.modules.wrappers import plain_parameters
from lamina.recording.captured import Collector
from lamina.recording.closures import with_gradients
from lamina.recording.own_rows import check_rows, own_rows
from lamina.recording.ranks import own_rank
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
        """False if there is nothing to take: an optimizer without state before its first step, rows of another rank."""


class ParameterTaps:
    """The taps of parameters of one recorder."""

    def __init__(
        self,
        model: nn.Module,
        sites: Iterable[ParameterSite],
        collector: Collector,
        optimizer: torch.optim.Optimizer | None,
        *,
        replicated: bool,
    ) -> None:
        # Also for who looks at parameters after this: what FSDP2 gathered for a forward pass are others.
        reshard(model)
        found = dict(plain_parameters(model))
        self.taps = [ParameterTap(site, found[site.parameter]) for site in sites]
        self._collector = collector
        self._optimizer = optimizer
        self._handles: list[RemovableHandle] = []
        self._stepped = False
        self._taken = False
        for tap in self.taps:
            if is_lazy(tap.parameter):
                raise RecordingError(
                    f"the parameter {tap.site.parameter!r} has no shape yet", hint="run the model on one batch first"
                )
            if tap.parameter.is_meta:
                raise RecordingError(
                    f"the parameter {tap.site.parameter!r} has no values on this device (meta)",
                    hint="record it of a model that is loaded whole",
                )
            check_rows(tap.site.parameter, tap.parameter)
        copies = replicated and own_rank() not in (None, 0)
        self._own = [] if copies else [tap for tap in self.taps if own_rows(tap.parameter) is not None]
        for tap in self.taps:
            tap.expected = tap in self._own

    def attach(self) -> None:
        """Watch the optimizer's steps."""
        if self.taps and self._optimizer is not None:
            self._handles = [
                self._optimizer.register_step_pre_hook(self._before_update),
                self._optimizer.register_step_post_hook(lambda *_: self._after_update()),
            ]

    def detach(self) -> None:
        """Watch them no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def begin(self) -> None:
        """Take the values and states of the taps that are armed."""
        self._stepped = self._taken = False
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

    def take_gradients(self) -> None:
        """Take the gradients of the taps that are armed now, and not when the optimizer steps."""
        self._take_gradients()
        self._taken = True

    @property
    def awaited(self) -> list[str]:
        """The sites that are armed and that only the optimizer's step fills: a later micro-batch may bring it."""
        if self._optimizer is None or self._stepped:
            return []
        return [tap.site.name for tap in self._armed() if tap.site.what in ("grad", "update")]

    def disarm(self) -> None:
        """Make all taps idle."""
        self._stepped = self._taken = False
        for tap in self.taps:
            tap.armed, tap.before = False, None

    def _armed(self) -> list[ParameterTap]:
        return [tap for tap in self._own if tap.armed]

    def _before_update(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        for tap in self._armed():
            if tap.site.what == "update":
                tap.before = tap.parameter.detach().clone()
        # A fused optimizer unscales the gradients itself, while it steps.
        return with_gradients(lambda: self._take_gradients(getattr(optimizer, "grad_scale", None)), args, kwargs)

    def _after_update(self) -> None:
        self._stepped = True
        for tap in self._armed():
            if tap.before is not None:
                self._take(tap, tap.parameter.detach() - tap.before)
                tap.before = None

    def _take_gradients(self, scale: torch.Tensor | None = None) -> None:
        if self._taken:
            return
        for tap in self._armed():
            gradient = tap.parameter.grad
            if tap.site.what == "grad" and gradient is not None:
                self._take(tap, gradient if scale is None else gradient / scale)

    def _take_state(self, tap: ParameterTap, key: str) -> None:
        assert self._optimizer is not None
        state = self._optimizer.state.get(tap.parameter, {})
        tap.expected = bool(state)
        if state and key not in state:
            raise RecordingError(
                f"the optimizer keeps no {key!r} of {tap.site.parameter!r}",
                hint=f"it keeps {', '.join(map(str, state))}",
            )
        if not state:
            return
        value = torch.as_tensor(state[key])
        own = own_rows(tap.parameter)
        if own is not None and own[1] > 0 and not is_sharded(value):
            # One number for the whole parameter: the rank of its first row records it.
            tap.expected = False
            return
        self._take(tap, value)

    def _take(self, tap: ParameterTap, value: torch.Tensor) -> None:
        own = own_rows(value)
        if own is not None:
            self._collector.take_units(tap.site.name, own[0], tap.site.options, start=own[1])


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer of torch inside of one that Accelerate or Lightning made: it alone calls hooks."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = getattr(optimizer, "optimizer")  # noqa: B009 - no attribute of every optimizer
    return optimizer
