"""Where benchmarks read and write."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

RESULTS = ROOT / "bench" / "results"

SCRATCH = ROOT / "target" / "bench"
"""A folder that a benchmark may empty."""

OURS = Path(sys.executable)

PEERS = ROOT / ".venv-peers" / "bin" / "python"


@contextmanager
def emptied(folder: Path) -> Iterator[None]:
    """Make a folder, empty, and remove it however the run ends: by an error, Ctrl-C, or SIGTERM.

    What SIGKILL leaves the next run removes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # as any other exit, so that what is open is closed
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(folder, ignore_errors=True)
