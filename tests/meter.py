"""The memory meter: what the operating system says a Python snippet needed at its peak.

A tracer inside Python does not see what torch allocates. `VmHWM` is the kernel's own high-water mark of
resident memory; it starts anew with each program, unlike `ru_maxrss`, which a child inherits. What malloc keeps of
memory that was freed is not needed: it is told to give back every buffer of a MiB, instead of learning from sizes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**20),
}
_REPORT = """
with open("/proc/self/status") as _status:
    print(next(line.split()[1] for line in _status if line.startswith("VmHWM:")))
"""


def peak_bytes(snippet: str, *, timeout: float = 240) -> int:
    """Run `snippet` in a fresh interpreter and return its peak of resident memory in bytes.

    The snippet may be indented. One thread, so that buffers of a thread do not blur the figure.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(snippet) + _REPORT],
        cwd=_ROOT,
        env=os.environ | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the measured snippet exited with {done.returncode}:\n{done.stderr}")
    return int(done.stdout.split()[-1]) * 1024
