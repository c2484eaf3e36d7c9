"""What sweeps have computed, in files that a kill or a power cut leaves readable.

A folder a measure, named after it and its code. In it a file a process that computed something, in which each line is
whole or ignored: the CRC32 of what follows as 8 hexadecimal digits, a space, the cell's key as 32, a space, and the
estimate as JSON. Nobody writes to the file of another, so there are no locks.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4
from zlib import crc32

from lamina.errors import StorageError
from lamina.measures import Estimate
from lamina.sweeps.records import of_text, to_text

_SYNC_SECONDS = 1.0
"""How long an estimate that was computed may wait to survive a power cut."""


class Cache:
    """The estimates of one measure in one folder.

    Args:
        folder: Where they lie; neither it nor the one above it need exist.
        parents: Whether those further above are made, too. In a run they are not: one that was removed meanwhile does
            not come back as a folder that holds nothing but this.
    """

    def __init__(self, folder: Path, *, parents: bool) -> None:
        self._folder = folder
        self._parents = parents
        self._lines = _read(folder)
        self._file: int | None = None
        self._path = folder / f"{time.time_ns():020d}-{uuid4().hex[:8]}.jsonl"
        self._written = False
        self._synced = time.monotonic()

    def get(self, key: bytes) -> Estimate | None:
        """Return the estimate of a cell, or None."""
        line = self._lines.get(key.hex().encode())
        return None if line is None else of_text(line)

    def open(self) -> None:
        """Make sure that estimates can be kept.

        Raises:
            StorageError: They cannot, as in a run that is for reading only.
        """
        if self._file is not None:
            return
        try:
            self._folder.parent.mkdir(parents=self._parents, exist_ok=True)
            self._folder.mkdir(exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except OSError as error:
            raise StorageError(
                f"results cannot be kept in {self._folder}: {error.strerror}",
                hint="cache= names another folder, cache=False keeps nothing",
            ) from error

    def put(self, key: bytes, estimate: Estimate) -> None:
        """Keep the estimate of a cell.

        Raises:
            StorageError: The file system refused.
        """
        self.open()
        assert self._file is not None
        name, text = key.hex().encode(), to_text(estimate).encode()
        line = name + b" " + text
        data = b"%08x %s\n" % (crc32(line), line)
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._written = True
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            raise StorageError(f"a result cannot be kept in {self._path}: {error.strerror}") from error
        self._lines[name] = text

    def close(self) -> None:
        """Make what was kept durable."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            if self._written:
                os.fsync(file)
            else:
                with suppress(OSError):
                    self._path.unlink()
        finally:
            os.close(file)


def _read(folder: Path) -> dict[bytes, bytes]:
    """Return the JSON of every whole line by its key."""
    lines: dict[bytes, bytes] = {}
    for path in sorted(folder.glob("*.jsonl")):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # the file of another sweep that computed nothing
            continue
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}", hint="cache=False does without") from error
        for line in data.split(b"\n"):
            if len(line) > 42 and line[8:9] == line[41:42] == b" " and line[:8] == b"%08x" % crc32(line[9:]):
                lines[line[9:41]] = line[42:]
    return lines
