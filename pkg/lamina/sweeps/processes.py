"""Workers that are processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from lamina.errors import WorkerError
from lamina.sweeps.crews import Lost
from lamina.sweeps.working import READY

_BEGIN = """
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from lamina.sweeps.working import serve
serve(int(sys.argv[1]), int(sys.argv[2]))
"""
"""What a worker runs. It is no child of `multiprocessing`, which would run the caller's script in it again."""

_POLL = 0.5
"""Seconds after which a worker that died without closing its socket (its own children hold it) is noticed."""


@dataclass
class _Process:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False


class Processes:
    """A crew of processes (`lamina.sweeps.crews.Crew`).

    Args:
        threads: What the arithmetic of each may use.

    Attributes:
        room: How many there are cores for, and at least two: a measure is not all arithmetic.
    """

    def __init__(self, threads: int) -> None:
        self.room = max(2, (os.cpu_count() or 2) // threads)
        self._threads = threads
        self._processes: dict[int, _Process] = {}
        self._started = 0
        self._any_ready = False

    def start(self) -> int:
        """Start a process, in a group of its own: Ctrl-C is told to this process alone, which ends the others."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BEGIN, str(theirs.fileno()), str(self._threads), json.dumps(sys.path)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], process_group=0)
        self._started += 1
        self._processes[self._started] = _Process(process, Connection(ours.detach()))
        return self._started

    def send(self, worker: int, payload: bytes) -> None:
        """Give a process a task; whether it is alive shows when it is waited for."""
        with suppress(OSError):
            self._processes[worker].connection.send_bytes(payload)

    def wait(self) -> list[tuple[int, bytes | Lost]]:
        """Wait until a process answers or dies."""
        found: list[tuple[int, bytes | Lost]] = []
        while not found:
            wait([each.connection for each in self._processes.values()], _POLL)
            for worker, each in list(self._processes.items()):
                if each.connection.poll():
                    reply = self._read(worker, each)
                elif _ended(each) and not each.connection.poll():
                    reply = self._died(worker, each)
                else:
                    continue
                if reply is not None:
                    found.append((worker, reply))
        return found

    def _read(self, worker: int, each: _Process) -> bytes | Lost | None:
        try:
            reply = each.connection.recv_bytes()
        except (EOFError, OSError):
            return self._died(worker, each)
        if not each.ready and reply == READY:
            each.ready = self._any_ready = True
            return None
        return reply

    def _died(self, worker: int, each: _Process) -> Lost:
        del self._processes[worker]
        os.waitid(os.P_PID, each.process.pid, os.WEXITED | os.WNOWAIT)
        _end(each)
        code = each.process.returncode
        cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        if not self._any_ready:
            raise WorkerError(f"a worker {cause} before it was ready", hint="what it said stands above")
        return Lost(f"worker {worker} (process {each.process.pid})", cause)

    def close(self) -> None:
        """End all processes, and those that they started."""
        for each in self._processes.values():
            _end(each)
        self._processes.clear()


def _ended(each: _Process) -> bool:
    # left unreaped, so that its number still names its group and nothing else
    return os.waitid(os.P_PID, each.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(each: _Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(each.process.pid, signal.SIGKILL)
    each.process.wait()
    each.connection.close()
