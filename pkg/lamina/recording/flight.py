"""The flight recorder: the last steps of a training stay in memory and are written when something happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lamina.errors import RecordingError
from lamina.recording.triggers import Trigger, Watch

OWN_PARTS = frozenset({"model", "optimizer", "batch", "random"})
"""Parts of a checkpoint that Lamina saves itself."""


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
    - `run.load(s, part="random")`: the state of the random generators before each of these, a list, for
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
        if taken := OWN_PARTS & set(self.also):
            raise RecordingError(f"Flight: also= cannot have the name {min(taken)!r}", hint="Lamina saves that part")
        Watch(self.when, self.last)
