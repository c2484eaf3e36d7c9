"""Which step it is: steps grow, and a number that comes again is a micro-batch of the same step."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from lamina.errors import RecordingError

OWN_COLUMNS = frozenset({"row", "source", "call", "micro", "rank"})
"""Columns that Lamina fills."""


class Progression:
    """The steps of one recording.

    Attributes:
        last: The step that was begun last, None before the first.
        micro: How many micro-batches of it came before.
        open: Whether it has not ended.
        completed: Whether it ended without an exception.
    """

    def __init__(self) -> None:
        self.last: int | None = None
        self.micro = 0
        self.open = False
        self.completed = False

    def begin(self, step: Any, columns: Iterable[str]) -> bool:
        """Begin a step and return whether it is a new one.

        Raises:
            RecordingError: It is no whole number, negative, smaller than the last, begins inside another, or a
                column is one that Lamina fills.
        """
        try:
            step = operator.index(step)
        except TypeError:
            raise RecordingError(f"the step {step!r} is no whole number") from None
        if step < 0:
            raise RecordingError(f"the step {step} is negative", hint="step s is the state after s updates")
        if self.open:
            raise RecordingError(f"step {step} begins inside step {self.last}", hint="steps cannot be nested")
        if self.last is not None and step < self.last:
            raise RecordingError(
                f"step {step} comes after step {self.last}",
                hint="count updates over all epochs; to resume from a checkpoint leave this recorder, hide what came "
                "after it by run.rewind(step), and record anew",
            )
        if not OWN_COLUMNS.isdisjoint(columns):
            names = ", ".join(sorted(OWN_COLUMNS.intersection(columns)))
            raise RecordingError(f"the column {names} is filled by Lamina", hint="choose another name")
        new = step != self.last
        self.micro = 0 if new else self.micro + 1
        self.last, self.open, self.completed = step, True, False
        return new
