"""All that one recorder watches, and the collector that it fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.recording.attending import AttentionTaps
from lamina.recording.captured import Captured, Collector
from lamina.recording.parameters import ParameterTap, ParameterTaps
from lamina.recording.resolve import Resolved
from lamina.recording.sites import DEFAULT, Site
from lamina.recording.taps import BatchCounter, Tap

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class AttentionSite:
    """A statistic of one attention module."""

    name: str
    options: Site = DEFAULT


class AttentionTap:
    """Whether a statistic is due."""

    expected = True

    def __init__(self, site: AttentionSite) -> None:
        self.site = site
        self.armed = False


AnyTap = Tap | ParameterTap | AttentionTap
PassTap = Tap | AttentionTap
"""What a forward pass alone can fill."""


class Taps:
    """The taps of one recorder: of modules, parameters and attention.

    As a context manager it attaches the hooks and takes them away.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Resolved,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        attention: Iterable[str] = (),
        replicated: bool = False,
    ) -> None:
        self.collector = Collector()
        self._counter = BatchCounter(model, self.collector)
        self._modules = [Tap(site, self.collector) for site in sites.sites]
        self._parameters = ParameterTaps(model, sites.parameters, self.collector, optimizer, replicated=replicated)
        attention = [attention] if isinstance(attention, str) else list(attention)
        self._attention = AttentionTaps(model, attention, self.collector.take) if attention else None
        names = [] if self._attention is None else self._attention.names()
        self._statistics = [AttentionTap(AttentionSite(name)) for name in names]
        self._stack = ExitStack()
        self._armed = False

    def __enter__(self) -> Taps:
        """Attach all hooks, or none."""
        with ExitStack() as stack:
            _entered.append(self)
            stack.callback(_entered.remove, self)
            for hook in (self._counter, *self._modules, self._parameters):
                stack.callback(hook.detach)
                hook.attach()
            if self._attention is not None:
                stack.enter_context(self._attention)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take all hooks away."""
        self._stack.close()

    def __iter__(self) -> Iterator[AnyTap]:
        """Yield the taps in order of the sites, then those of parameters, then those of attention."""
        yield from self._modules
        yield from self._parameters.taps
        yield from self._statistics

    @property
    def of_passes(self) -> list[PassTap]:
        """The taps that a forward pass alone can fill: no gradients, no parameters."""
        return [*(tap for tap in self._modules if not tap.site.gradient), *self._statistics]

    @property
    def awaited(self) -> list[str]:
        """The sites that are armed and that only the optimizer's step fills."""
        return self._parameters.awaited

    def count_unseen(self) -> None:
        """Count the training calls of the model from now on that come while no site is armed."""
        self._counter.unseen = 0

    def see(self) -> None:
        """Count them no more: a step was entered."""
        self._counter.unseen = None

    def warn_of_unseen(self) -> None:
        """Warn of those that were counted, if there were any."""
        if self._counter.unseen:
            self._counter.warn_of_unseen()

    def take_gradients(self) -> None:
        """Take the gradients of the parameters that are armed."""
        self._parameters.take_gradients()

    def arm(self, taps: Iterable[AnyTap]) -> None:
        """Make some taps capture until `disarm`."""
        self._armed = True
        for tap in taps:
            tap.armed = True
        self._counter.armed = True
        self._parameters.begin()
        if self._attention is not None:
            self._attention.arm([tap.site.name for tap in self._statistics if tap.armed])

    def disarm(self) -> None:
        """Make all taps idle."""
        if not self._armed:
            return
        self._armed = False
        self._counter.disarm()
        for tap in self._modules:
            tap.disarm()
        self._parameters.disarm()
        if self._attention is not None:
            self._attention.disarm()
            for tap in self._statistics:
                tap.armed = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Capture nothing of what a block of code does, and go on behind it."""
        hooks = [hook for hook in (self._counter, *self._modules) if hook.armed]
        for hook in hooks:
            hook.armed = False
        if self._attention is not None:
            self._attention.disarm()
        try:
            yield
        finally:
            for hook in hooks:
                hook.armed = True
            if self._attention is not None:
                self._attention.arm([tap.site.name for tap in self._statistics if tap.armed])

    def drain(self) -> list[Captured]:
        """Make all taps idle and return what they captured."""
        self._parameters.end()
        self.disarm()
        return self.collector.drain()

    @contextmanager
    def armed(self, taps: Iterable[PassTap]) -> Iterator[None]:
        """Arm some taps for a pass of their own, which is none of the step that other recorders may be in.

        What was collected is dropped if it raises.
        """
        with ExitStack() as stack:
            for other in _entered:
                stack.enter_context(other.paused())
            self.arm(taps)
            try:
                yield
            except BaseException:
                self.collector.drain()
                raise
            finally:
                self.disarm()


_entered: list[Taps] = []
"""Those of all recorders that are entered, and of passes that run."""
