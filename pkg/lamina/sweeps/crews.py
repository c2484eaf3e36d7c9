"""Workers that compute one task at a time, and what comes of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    Attributes:
        value: What the function returned.
        error: What it raised, or why no worker could compute it; None if it returned.
        lost: The workers that died while they computed it.
    """

    value: Any = None
    error: Exception | None = None
    lost: tuple[str, ...] = ()

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(frozen=True)
class Lost:
    """A worker that died, in words."""

    worker: str
    cause: str


class Crew(Protocol):
    """Workers, each of which computes one task at a time.

    Attributes:
        room: How many there are cores for.
    """

    room: int

    def start(self) -> int:
        """Start a worker and return its number."""
        ...

    def send(self, worker: int, payload: bytes) -> None:
        """Give a worker a pickled task."""
        ...

    def wait(self) -> list[tuple[int, bytes | Lost]]:
        """Return what came of tasks that were given: a pickled `Outcome`, or the loss of the worker."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...
