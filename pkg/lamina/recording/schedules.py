"""When something is recorded: schedules over steps."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from lamina.errors import RecordingError


@runtime_checkable
class Schedule(Protocol):
    """Anything that says of a step whether it is due."""

    def due(self, step: int) -> bool:
        """Return True if `step` is to be recorded."""
        ...


Every = int | Callable[[int], Any] | Container[int] | Schedule
"""What `every=` takes: see `lamina.record`."""


@dataclass(frozen=True)
class LogThenLinear:
    """The schedule that `log_then_linear` returns."""

    until: int
    every: int

    def due(self, step: int) -> bool:
        """Return True at 0, at powers of two up to `until`, and from there on at multiples of `every`."""
        if step & (step - 1) == 0 and step <= self.until:
            return True
        return step >= self.until and step % self.every == 0


def log_then_linear(until: int, every: int) -> LogThenLinear:
    """Return a schedule that is dense early, where networks change fastest, and even later.

    Due are step 0, the powers of two up to `until`, and from `until` on the multiples of `every`. Asking costs
    a few integer operations and no memory.

    Args:
        until: Where the logarithmic part ends, in steps; at least 1.
        every: Distance of the later steps; at least 1.

    Returns:
        The schedule, for `every=` and `checkpoint_every=` of `lamina.record` and for `Site`.

    Raises:
        RecordingError: If `until` or `every` is less than 1.

    Example:
        >>> from lamina import log_then_linear
        >>> schedule = log_then_linear(8, 10)
        >>> [step for step in range(31) if schedule.due(step)]
        [0, 1, 2, 4, 8, 10, 20, 30]
    """
    for name, value in (("until", until), ("every", every)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecordingError(f"log_then_linear: {name} is {value!r}", hint="it is a whole number, 1 or more")
    return LogThenLinear(until, every)


def schedule_of(every: Every) -> Schedule:
    """Return the schedule that a user's `every` stands for, or raise RecordingError."""
    if isinstance(every, Schedule):
        return every
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return _Multiples(every)
    if callable(every):
        return _When(every)
    if isinstance(every, (list, tuple)):
        return _Among(frozenset(every))
    if isinstance(every, Container) and not isinstance(every, (str, bytes)):
        return _Among(every)
    raise RecordingError(
        f"{every!r} is no schedule",
        hint="give a number (1 or more), log_then_linear(until, every), a set of steps or a function of the step",
    )


@dataclass(frozen=True)
class _Multiples:
    every: int

    def due(self, step: int) -> bool:
        return step % self.every == 0


@dataclass(frozen=True)
class _When:
    says: Callable[[int], Any]

    def due(self, step: int) -> bool:
        return bool(self.says(step))


@dataclass(frozen=True)
class _Among:
    steps: Container[int]

    def due(self, step: int) -> bool:
        return step in self.steps
