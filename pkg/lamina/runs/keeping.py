"""Keeping a run: checking it, and what is done to it as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from lamina import _core
from lamina.progress import watch

_PROBLEMS = {"file": pl.String, "offset": pl.Int64, "problem": pl.String, "affected": pl.String}


@dataclass(frozen=True)
class Verification:
    """What was checked of a run, and what was found.

    Attributes:
        files: Segments and packs that were read.
        bytes: Bytes that were checked, in them and in the logs.
        problems: One row a problem: file, offset (in bytes, null if it is about the file), problem, affected (site,
            rows and steps that cannot be read because of it).
    """

    files: int
    bytes: int
    problems: pl.DataFrame

    @property
    def ok(self) -> bool:
        """Whether every byte is what was written."""
        return self.problems.is_empty()

    def __str__(self) -> str:
        """What was checked, and how many problems there are."""
        found = "no problems" if self.ok else f"{self.problems.height} problem" + "s" * (self.problems.height > 1)
        return f"checked {self.bytes:,} bytes in {self.files:,} files and the logs: {found}"

    __repr__ = __str__


def verify(path: str | Path, *, progress: bool = True) -> Verification:
    """Computes every hash of a run again, whatever was read of it before.

    That is run.json, the commits, every record of every log, every 128 KiB of every block, the header and `.table` of
    every sealed segment, and every chunk of every checkpoint, hidden rows included. Problems are listed, not raised.

    Bytes behind a log's last valid record are a problem too unless its writer may still be at work: nobody can
    tell whether they were never acknowledged, as after a crash, or are damaged.

    Costs one reading of the whole run, with up to 8 threads and 4 MiB each.

    Args:
        path: The run's folder.
        progress: Whether to show a bar on a terminal.

    Raises:
        NotARunError: There is no run.
        FormatError: A newer Lamina wrote it.

    Example:
        >>> import lamina, tempfile
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/digits-0")
        >>> run.verify().ok
        True
    """
    files, size, damages = watch(lambda state: _core.verify(str(path), state), "verifying", progress)
    rows = [(file, offset, message, affected or None) for message, file, offset, affected in damages]
    return Verification(files, size, pl.DataFrame(rows, schema=_PROBLEMS, orient="row"))


@dataclass(frozen=True)
class Compaction:
    """What compacting a run did.

    Attributes:
        groups_before: Row groups that were replaced.
        groups_after: Row groups that replaced them.
        rows_dropped: Rows that `rewind` or `delete` had hidden, and that are gone.
        bytes_before: Bytes of the replaced groups; their files stay.
        bytes_after: Bytes of those that replaced them.
        chunks: Chunks of checkpoints that were coded anew.
        chunk_bytes_before: Their bytes before; their files go with the next `gc` whose grace is over.
        chunk_bytes_after: Their bytes after.
        working: Writers (ordinals) whose rows and checkpoints were left alone, since they may be at work.
        problems: One row a group or chunk that was left as it is because of damage: file, offset, problem.
    """

    groups_before: int
    groups_after: int
    rows_dropped: int
    bytes_before: int
    bytes_after: int
    chunks: int
    chunk_bytes_before: int
    chunk_bytes_after: int
    working: tuple[int, ...]
    problems: pl.DataFrame

    def __str__(self) -> str:
        """What was done, in a sentence."""
        parts = []
        if self.groups_before:
            text = f"{self.groups_before:,} row groups became {self.groups_after:,}"
            parts.append(f"{text} ({self.bytes_before:,} bytes became {self.bytes_after:,})")
        if self.chunks:
            text = f"{self.chunks:,} chunks of checkpoints were coded"
            parts.append(f"{text} ({self.chunk_bytes_before:,} bytes became {self.chunk_bytes_after:,})")
        text = "; ".join(parts) or "nothing to compact"
        if self.rows_dropped:
            text += f"; {self.rows_dropped:,} hidden rows are gone"
        if self.working:
            text += f"; left alone: {len(self.working)} writers that may be at work"
        if not self.problems.is_empty():
            text += f"; {self.problems.height} damaged groups or chunks stay as they are"
        return text

    __repr__ = __str__


def compact(path: str | Path, *, cold: Sequence[str] = (), progress: bool = True) -> Compaction:
    """Merges small row groups, leaves behind what `rewind` and `delete` hide, and codes checkpoints.

    Groups become 16 to 64 MiB; rows keep their names, values and columns. Only groups of writers that are done are
    touched: closed ones, and those whose process is gone, which are fenced first (a process that only seemed to be gone
    then finds out before it acknowledges anything). Others may write meanwhile, and readers go on with what they
    opened: the files of replaced groups stay where they are. It works in rounds of up to 1 GiB: whatever stops it, the
    rounds that were published stay, and the rest is as it was.

    Rows of the sites in `cold` are coded: byte planes in zstd frames, which take about two thirds of the space in
    bf16 and five sixths in f16 and f32, bit for bit the same when read. Whatever reads them decodes whole pieces of
    128 KiB: cheap for blocks, epochs in block order and scans, dear for single rows from all over. What is cold stays.

    Checkpoints are coded as well, without a loss of a bit: of nine saves of a tensor the middle one as byte planes,
    the others as differences from it, each where that saves 3 % or more. Two decodings at most bring a tensor back. The
    bytes that they took before are there until `gc` removes them.

    Metrics are left as they are. Costs one reading (every byte is verified) and one writing of what is merged or coded,
    and some 200 MiB of memory.

    Args:
        path: The run's folder.
        cold: Names of sites.
        progress: Whether to show a bar on a terminal.

    Raises:
        NotFoundError: There is no site of such a name.
        StorageError: The file system refused; what was published stays.

    Example:
        >>> import lamina, numpy as np, tempfile
        >>> run = lamina.Run.create(tempfile.mkdtemp() + "/run")
        >>> with run.writer() as writer:
        ...     for step in range(3):
        ...         durable = writer.append({"mlp.output": np.ones((2, 3), np.float32)}, step=step).wait()
        >>> run.refresh().delete(steps=1).compact().rows_dropped
        2
    """
    done = watch(lambda state: _core.compact(str(path), list(cold), state), "compacting", progress)
    rows = [(file, offset, message) for message, file, offset in done.pop("damages")]
    kinds = {name: kind for name, kind in _PROBLEMS.items() if name != "affected"}
    working = tuple(done.pop("working"))
    return Compaction(**done, working=working, problems=pl.DataFrame(rows, schema=kinds, orient="row"))
