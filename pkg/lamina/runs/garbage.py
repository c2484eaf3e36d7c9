"""Collecting the garbage of a run: files that nothing needs any more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lamina import _core
from lamina.errors import SchemaError
from lamina.progress import watch


@dataclass(frozen=True)
class Collection:
    """What collecting the garbage of a run did.

    Attributes:
        condemned: Files that nothing needs any more; a later collection removes them.
        removed: Files that were removed.
        bytes_freed: Their bytes.
        rows_dropped: Rows that `rewind` or `delete` had hidden, and that are gone.
        left: One row a file that seems without need and is there still: file, reason.
        working: Writers (ordinals) whose files were left alone, since they may be at work.
    """

    condemned: tuple[str, ...]
    removed: tuple[str, ...]
    bytes_freed: int
    rows_dropped: int
    left: pl.DataFrame
    working: tuple[int, ...]

    def __str__(self) -> str:
        """What was done, in a sentence."""
        parts = [f"{_files(len(self.condemned))} condemned"] if self.condemned else []
        if self.removed:
            parts.append(f"{_files(len(self.removed))} removed ({self.bytes_freed:,} bytes)")
        if self.rows_dropped:
            parts.append(f"{self.rows_dropped:,} hidden rows are gone")
        text = "; ".join(parts or ["nothing to collect"])
        if not self.left.is_empty():
            text += f"; left: {_files(self.left.height)}"
        if self.working:
            text += f"; left alone: {len(self.working)} writers that may be at work"
        return text

    __repr__ = __str__


def _files(count: int) -> str:
    return f"{count:,} file" + "s" * (count != 1)


def gc(path: str | Path, *, grace: float | None = None, progress: bool = True) -> Collection:
    """Removes the files that nothing needs any more, some time after it found them.

    Nothing needs segments whose rows were compacted into others or are deleted wholly, packs of which no checkpoint
    that is shown names a chunk, and what was begun by writers and commits that died. Such files are condemned at first,
    by a commit; a collection `grace` seconds later drops them, by another, and removes them. Whatever interrupts it,
    the next one completes it.

    Files of writers that may be at work are not touched. A reader goes on with the files that it has opened; one that
    opens a removed file gets an `ExpiredError`, and `run.refresh()` sees where the rows are. So `grace` is the time for
    which a `Run` that was opened can be read without a refresh. With 0, files go at once; checkpoints that other
    processes save at that moment may then fail, which their tickets tell. A clock that was set back makes the grace
    longer, not shorter.

    Where a log is damaged, what it may have named stays; while a commit is damaged, everything does. Costs one
    reading of the logs.

    Args:
        path: The run's folder.
        grace: Seconds; by default a day.
        progress: Whether to show a bar on a terminal.

    Raises:
        DamagedError: A commit cannot be read.
        SchemaError: `grace` is negative, or no number.
        StorageError: The file system refused; nothing that counts is gone.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     ticket = writer.append({"mlp.output": np.ones((2, 3), np.float32)}, step=0)
        >>> run.refresh().delete(steps=0).gc(grace=0).removed
        ('segments/000000-000000.safetensors',)
    """
    if grace is not None and not (isinstance(grace, int | float) and grace >= 0 and not math.isnan(grace)):
        raise SchemaError(f"grace={grace!r}", hint="it is a number of seconds, 0 or more")
    seconds = None if grace is None else float(grace)
    done = watch(lambda state: _core.gc(str(path), seconds, state), "collecting", progress)
    left = pl.DataFrame(done.pop("left"), schema={"file": pl.String, "reason": pl.String}, orient="row")
    condemned, removed, working = (tuple(done.pop(name)) for name in ("condemned", "removed", "working"))
    return Collection(condemned, removed, **done, left=left, working=working)
