"""The flight recorder: the last steps of a training stay in memory and are written when something happens."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from lamina.errors import RecordingError
from lamina.recording.ranks import own_rank
from lamina.recording.state import random_state
from lamina.recording.triggers import Trigger, Watch
from lamina.runs import LaminaWarning
from lamina.runs.buffers import Lent

if TYPE_CHECKING:
    from lamina.recording.guarded import GuardedWriter


class Stateful(Protocol):
    """What has a state beside model and optimizer: a learning rate schedule, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...


@dataclass(frozen=True)
class Flight:
    """The last steps of a training, written when a trigger fires or the training ends with an exception.

    All sites of the recorder are captured at every step and kept in memory. When a trigger fires, the rows of the last
    steps go to the run (those that a schedule wrote before are not written twice), together with what it takes to
    go through these steps again:

    - `run.load(s, part="batch")`: the micro-batches given to `recorder.step(s, batch=…)`, a list;
    - `run.load(s, part="random")`: the state of the random generators before each, a list, for
      `lamina.recording.set_random_state`;
    - `run.load(s)`, `run.load(s, part="optimizer")` and those of `also`, at one step s: the state at its begin, from
      which at least `last` steps lead to the trigger, if there were as many.

    A metric `flight/<trigger>` is 1 at the step that fired. A trigger that goes on firing is told once, and heard
    again after `last` steps of silence. Metrics are looked at when the next step begins, and on a GPU when they
    have arrived: nothing waits for it.

    Cost: a capture of all sites at each step; a copy of model and optimizer to the CPU every
    `last` steps. Memory: rows of `last` steps, batches of at most twice as many, and two copies of model and
    optimizer. In a distributed training every rank has its own and decides alone; the parts of rank r > 0 are called
    `batch.rank<r>`, `model.rank<r>` and so on.

    Args:
        last: How many steps stay in memory, at least 1.
        when: The triggers: `lamina.Spike`, `lamina.Above`, `lamina.NonFinite`, or functions of the metrics of a
            step, a dict of floats. They see what `recorder.log` is given.
        state: Whether model and optimizer are kept, as replaying needs them.
        also: What else has a `state_dict()`, such as a learning rate schedule, by name; saved as parts of that name.

    Raises:
        RecordingError: `last` or a trigger will not do.

    Example:
        >>> import lamina, tempfile, torch, warnings
        >>> warnings.simplefilter("ignore", lamina.LaminaWarning)  # it tells what it has written
        >>> model, run = torch.nn.Linear(4, 1), lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> flight = lamina.Flight(last=3, when=[lamina.Above("loss", 100.0)])
        >>> with lamina.record(model, run, sites="output", every=1000, flight=flight) as recorder:
        ...     for step in range(8):
        ...         batch = torch.full((2, 4), 1e6 if step == 6 else 1.0)
        ...         with recorder.step(step, example=[0, 1], batch=batch):
        ...             loss = model(batch).square().mean()
        ...         recorder.log({"loss": loss})
        >>> run.steps()
        [0, 4, 5, 6]
        >>> run.load(6, part="batch")[0][0]
        tensor([1000000., 1000000., 1000000., 1000000.])
    """

    last: int = 8
    when: Sequence[Trigger] = ()
    state: bool = True
    also: Mapping[str, Stateful] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked before a training."""
        if not isinstance(self.last, int) or isinstance(self.last, bool) or self.last < 1:
            raise RecordingError(f"Flight: last={self.last!r}", hint="it is a number of steps, 1 or more")
        if isinstance(self.when, str) or not isinstance(self.when, Sequence):
            raise RecordingError("Flight: when= is a list of triggers", hint="such as when=[lamina.NonFinite()]")
        if taken := {"model", "optimizer", "batch", "random"} & set(self.also):
            raise RecordingError(f"Flight: also= cannot have the name {min(taken)!r}", hint="Lamina saves that part")
        Watch(self.when, self.last)


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
        """Take the batch that the current step is about to train on."""
        self._moments[-1].random.append(random_state())
        if batch is not None:
            self._moments[-1].batches.append(copied(batch, "batch"))

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
