"""The page cache: getting files out of it, and seeing whether they are."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

MOST_LEFT = 0.01
"""The share of its bytes that may stay in the page cache while files still count as cold."""

_ALL = Path("/proc/sys/vm/drop_caches")


def drop(files: Iterable[Path]) -> str | None:
    """Get files out of the page cache; where advice does not do and the right is there, empty all of it.

    Pages that some process has mapped and touched stay: close what reads the files before.

    Returns:
        Why the files are not cold, or None: they are, as `mincore` says.
    """
    files = list(files)
    for path in files:
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)  # what is not yet on the disk stays in the cache
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)
    try:
        left = resident(files)
        if left > MOST_LEFT and os.access(_ALL, os.W_OK):
            _ALL.write_text("1")
            left = resident(files)
    except OSError as error:
        return f"mincore cannot be asked: {error}"
    return f"{100 * left:.0f} % of the bytes stay in the page cache" if left > MOST_LEFT else None


def resident(files: Iterable[Path]) -> float:
    """Return which share of the pages of files is in the page cache."""
    there = pages = 0
    for path in files:
        size = path.stat().st_size
        if size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                states = _states(np.frombuffer(mapped, np.uint8))
            there, pages = there + int((states & 1).sum()), pages + states.size
    return there / max(pages, 1)


def _states(mapped: np.ndarray) -> np.ndarray:
    """Ask mincore about each page of a map."""
    states = np.zeros(-(-mapped.size // mmap.PAGESIZE), np.uint8)
    address, length, out = map(ctypes.c_void_p, (mapped.ctypes.data, mapped.size, states.ctypes.data))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mincore(address, length, out):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return states
