"""What a worker does with a task, in whatever kind of process it lives."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from queue import SimpleQueue

import cloudpickle

from lamina.errors import WorkerError
from lamina.sweeps.crews import Outcome
from lamina.sweeps.threads import torch_threads

READY = b"ready"


def answer(payload: bytes, threads: int) -> bytes:
    """Compute a pickled task and return its pickled outcome, whatever happens."""
    try:
        function, arguments = cloudpickle.loads(payload)
        with torch_threads(threads):
            outcome = Outcome(function(*arguments))
        return cloudpickle.dumps(outcome)
    except Exception as error:
        return _raised(error)


def _raised(error: Exception) -> bytes:
    """Pickle an error so that it can be unpickled, with the worker's own traceback as a note."""
    told = "".join(traceback.format_exception(error)).rstrip()
    error.add_note(f"in a worker (process {os.getpid()}):\n{told}")
    try:
        reply = cloudpickle.dumps(Outcome(error=error))
        cloudpickle.loads(reply)
    except Exception:
        spoken = WorkerError(f"{type(error).__name__}: {error}")
        spoken.add_note(error.__notes__[-1])
        reply = cloudpickle.dumps(Outcome(error=spoken))
    return reply


def serve(descriptor: int, threads: int) -> None:
    """Answer what comes through a socket until its other end closes; then end at once, and what was started here too.

    The process is the first of its group, which holds what it started.
    """
    os.set_inheritable(descriptor, False)
    connection, payloads = Connection(descriptor), SimpleQueue[bytes]()

    def read() -> None:
        try:
            while True:
                payloads.put(connection.recv_bytes())
        except (EOFError, OSError):
            os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    import torch  # noqa: F401 - before it says that it is ready, so that no task waits for it

    connection.send_bytes(READY)
    while True:
        connection.send_bytes(answer(payloads.get(), threads))
