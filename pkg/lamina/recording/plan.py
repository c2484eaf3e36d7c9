"""Which taps are due at which step."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.recording.schedules import Schedule, schedule_of
from lamina.recording.watching import AnyTap


class Plan:
    """The recorder's schedule, those of its sites, and the taps that follow each.

    A schedule is asked once a step, however many sites follow it: a function may keep count.
    """

    def __init__(self, every: Schedule, taps: Iterable[AnyTap]) -> None:
        self._own: list[AnyTap] = []
        others: dict[int, tuple[Schedule, list[AnyTap]]] = {}
        for tap in taps:
            asked = tap.site.options.every
            if asked is None:
                self._own.append(tap)
            else:
                others.setdefault(id(asked), (schedule_of(asked), []))[1].append(tap)
        self._every = every
        self._others = list(others.values())

    def due(self, step: int) -> tuple[bool, list[AnyTap]]:
        """Return whether the recorder's own schedule is due, and all taps that are."""
        own = self._every.due(step)
        due = list(self._own) if own else []
        for schedule, taps in self._others:
            if schedule.due(step):
                due += taps
        return own, due
