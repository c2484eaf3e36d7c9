"""The memory meter: what the operating system says a Python snippet needed at its peak.

A tracer inside Python does not see what torch allocates. `VmHWM` is the kernel's own high-water mark of resident
memory; a process that is forked begins with what it shares at that moment, unlike `ru_maxrss`, which a child inherits.
What malloc keeps of memory that was freed is not needed: it is told to give back every buffer of a MiB, instead of
learning from sizes.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import textwrap
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
_M_MMAP_THRESHOLD = -3


def peak_bytes(snippet: str, *, timeout: float = 240) -> int:
    """Run `snippet` in a process of its own and return its peak of resident memory in bytes.

    The process is forked from the server of `tests/conftest.py`, which has imported what takes long, and done nothing
    else. The snippet may be indented. One thread, so that buffers of a thread do not blur the figure.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(textwrap.dedent(snippet), sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            raise TimeoutError(f"the measured snippet ran for more than {timeout} s")
        found = receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"the measured snippet exited with {process.exitcode}") from error
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise RuntimeError(f"the measured snippet failed:\n{found}")
    return found


def _measure(snippet: str, sender: Connection) -> None:
    os.environ.update(_ENVIRONMENT)
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)
    import torch

    torch.set_num_threads(1)
    try:
        names = {"__name__": "__main__"}  # held until the peak was read: what takes them down is not the snippet's
        exec(compile(snippet, "the snippet", "exec"), names)
        sender.send(_peak())
    except BaseException:
        sender.send(traceback.format_exc())


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024
