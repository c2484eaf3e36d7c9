"""The memory of a flight recorder: the last steps of a training, and when they are written."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.flight import Flight, Stateful
from lamina.recording.ranks import own_rank
from lamina.recording.state import random_state
from lamina.recording.triggers import Watch
from lamina.runs.buffers import Lent

if TYPE_CHECKING:
    from lamina.recording.guarded import GuardedWriter


@dataclass
class _Moment:
    """One step: its rows, its batches and what the random generators were before each."""

    step: int
    rows: list[tuple[dict[str, torch.Tensor | Lent], dict[str, Any]]] = field(default_factory=list)
    batches: list[Any] = field(default_factory=list)
    random: list[Any] = field(default_factory=list)
    saved: int = 0


class FlightRing:
    """The steps that a flight recorder holds, and when it writes them.

    States are kept `last` steps apart, two of them: at any time one of them is at least `last` steps old, or the
    first of all, and the batches since then are here.
    """

    def __init__(self, flight: Flight, writer: GuardedWriter, state: Mapping[str, Stateful]) -> None:
        self._flight = flight
        self._writer = writer
        self._holders = {**state, **flight.also} if flight.state else {}
        self._watch = Watch(flight.when, flight.last)
        self._moments: list[_Moment] = []
        self._states: deque[tuple[int, dict[str, Any]]] = deque(maxlen=2)
        self._saved = -1
        self._rank = own_rank() or 0

    def begin(self, step: int) -> None:
        """Write what the steps before call for, and begin a step or a further micro-batch of it."""
        if self._moments and self._moments[-1].step == step:
            return
        self.check(before=step)
        if self._holders and (not self._states or step - self._states[-1][0] >= self._flight.last):
            state = {name: copied(one.state_dict(), name, "cpu") for name, one in self._holders.items()}
            self._states.append((step, state))
        self._moments.append(_Moment(step))
        if len(self._moments) > self._flight.last:
            self._moments[-1 - self._flight.last].rows.clear()
        oldest = self._states[0][0] if self._states else self._moments[-self._flight.last :][0].step
        while self._moments[0].step < oldest:
            del self._moments[0]

    def batch(self, batch: Any) -> None:
        """Take the batch that the current step is about to train on, with the random state that it meets."""
        if batch is not None:
            self._moments[-1].batches.append(copied(batch, "batch"))
            self._moments[-1].random.append(random_state())

    def rows(self, sites: Mapping[str, torch.Tensor | Lent], columns: Mapping[str, Any]) -> None:
        """Take rows of the current step that no schedule wrote."""
        own = {name: _own(column) for name, column in columns.items()}
        # Captured values are copies already, each its own.
        self._moments[-1].rows.append((dict(sites), own))

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Take metrics, for the triggers."""
        self._watch.log(metrics, step)

    def check(self, before: float = float("inf"), *, wait: bool = False) -> None:
        """Write if a trigger fired in a step < `before`."""
        if fired := self._watch.fired(before, wait=wait):
            self.write(fired)

    def write(self, reasons: Sequence[tuple[str, int]]) -> None:
        """Write all that is here and was not written; `reasons` are triggers with their steps."""
        if not self._moments:
            return
        if self._states and self._states[0][0] > self._saved:
            self._saved, parts = self._states[0]
            self._save(parts, self._saved)
        for moment in self._moments:
            for sites, columns in moment.rows:
                self._writer.append(sites, step=moment.step, source="train", **columns)
            moment.rows.clear()
            if len(moment.batches) > moment.saved:
                moment.saved = len(moment.batches)
                self._save({"batch": moment.batches, "random": moment.random}, moment.step)
        for name, step in reasons:
            self._writer.log({f"flight/{name}": 1.0}, step=step)
        told = ", ".join(f"{name} at step {step}" for name, step in reasons)
        held = "" if any(one.batches for one in self._moments) else "; batches are missing: give step(…, batch=…)"
        first, last = self._moments[-self._flight.last :][0].step, self._moments[-1].step
        warnings.warn(
            f"the flight recorder has written steps {first} to {last} because of {told}{held}",
            LaminaWarning,
            stacklevel=2,
        )

    def _save(self, parts: Mapping[str, Any], step: int) -> None:
        # Other ranks save other batches at this step, and perhaps nothing: what each needs stands under its own names.
        suffix = f".rank{self._rank}" if self._rank else ""
        self._writer.save({name + suffix: part for name, part in parts.items()}, step=step)

    def crash(self, error: BaseException) -> None:
        """Write what led to an exception in the training; an interrupt by the user is none."""
        try:
            fired = self._watch.fired(wait=True)
            if self._moments and isinstance(error, Exception):
                fired.append(("exception", self._moments[-1].step))
            if fired:
                self.write(fired)
        except Exception as failure:
            # What went wrong first is what the user has to hear of.
            error.add_note(f"The flight recorder could not write: {failure!r}")

    def close(self) -> None:
        """Look at the last metrics; warn of triggers that nothing was ever logged for."""
        self.check(wait=True)
        if self._moments and (unseen := self._watch.unseen):
            warnings.warn(
                f"the flight recorder waited for {', '.join(unseen)}, which recorder.log was never given",
                LaminaWarning,
                stacklevel=2,
            )


def copied(value: Any, name: str, device: str | None = None) -> Any:
    """Return a copy of nested containers of tensors, arrays, numbers and texts.

    Raises:
        RecordingError: Something else is in it, that a checkpoint could not hold.
    """
    match value:
        case torch.Tensor() if value.layout == torch.strided:
            return value.detach().to(device or value.device, copy=True)
        case np.ndarray():
            return value.copy()
        case None | bool() | int() | float() | str() | np.generic():
            return value
        case Mapping():
            return {key: copied(one, f"{name}[{key!r}]", device) for key, one in value.items()}
        case list():
            return [copied(one, f"{name}[{index}]", device) for index, one in enumerate(value)]
        case tuple():
            return tuple(copied(one, f"{name}[{index}]", device) for index, one in enumerate(value))
        case _:
            raise RecordingError(
                f"{name} is a {type(value).__name__}, which a flight recorder cannot keep",
                hint="it keeps dense tensors, arrays, numbers and texts, in lists, tuples and mappings",
            )


def _own(column: Any) -> Any:
    return column.clone() if isinstance(column, torch.Tensor) else copy(column)
