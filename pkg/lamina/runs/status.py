"""How a run stands, by its writers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_LONGEST = 300
"""Most characters of an error that are shown in a line."""


@dataclass(frozen=True)
class WriterStatus:
    """How one writer stands.

    Attributes:
        ordinal: Which writer of the run.
        state: `finished`, `failed` (closed with an exception, or by itself, as where a disk is full), `running`, or
            `abandoned` (its process is gone).
        error: Why it failed: the exception, or what the store could not do.
        host: The machine that it runs on.
        pid: Its process there.
        rank: Its rank in a distributed job.
        opened: When it was opened, UTC.
        closed: When it was closed, UTC.
        dropped_rows: Rows that it left out because its queue was full, durable counts alone.
        dropped: The same by site.
    """

    ordinal: int
    state: str
    error: str | None
    host: str | None
    pid: int | None
    rank: int | None
    opened: datetime | None
    closed: datetime | None
    dropped_rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        state: `empty` (nobody wrote), `running` (a writer is at work), `failed`, `abandoned`, or `finished`: every
            writer was closed without an exception.
        writers: Every writer.
    """

    state: str
    writers: tuple[WriterStatus, ...]

    @property
    def dropped_rows(self) -> int:
        """Rows that writers left out because their queues were full."""
        return sum(writer.dropped_rows for writer in self.writers)

    @property
    def dropped(self) -> dict[str, int]:
        """The same by site."""
        counts: Counter[str] = Counter()
        for writer in self.writers:
            counts.update(writer.dropped)
        return dict(counts)

    def __str__(self) -> str:
        """The state, why, of how many writers where others ended well, and what was dropped."""
        such = [writer for writer in self.writers if writer.state == self.state]
        errors = [" ".join(writer.error.split())[:_LONGEST] for writer in such if writer.error]
        if self.state == "abandoned":
            errors += [f"process {writer.pid} on {writer.host} is gone" for writer in such if writer.pid is not None]
        some = [f"{len(such)} of {len(self.writers)} writers"] if len(such) < len(self.writers) else []
        dropped = [f"{self.dropped_rows} rows dropped"] if self.dropped_rows else []
        notes = "; ".join(errors[-1:] + some + dropped)
        return f"{self.state} ({notes})" if notes else self.state

    __repr__ = __str__


def status(writers: list[dict[str, Any]]) -> RunStatus:
    """The status of a run from what the core knows of its writers."""
    found = tuple(_writer(**known) for known in writers)
    states = {writer.state for writer in found}
    first = next((state for state in ("running", "failed", "abandoned", "finished") if state in states), "empty")
    return RunStatus(first, found)


def _writer(*, opened: int | None, closed: int | None, **rest: Any) -> WriterStatus:
    return WriterStatus(**rest, opened=_time(opened), closed=_time(closed))


def _time(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime.fromtimestamp(microseconds / 1e6, UTC)


def bytes_on_disk(path: Path) -> int:
    """Return the summed lengths of all files under a run's folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
