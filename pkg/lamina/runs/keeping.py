"""Keeping a run: checking it, and what is done to it as a whole."""

from __future__ import annotations

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
