"""Code of other environments, called and timed as if it stood in this one.

A worker is a process that stays, so that its repetitions take turns with ours in one run. Arrays go there as
`.npy` files, before the clock starts; the clock is the worker's own, so that no pipe is timed.
"""

from __future__ import annotations

import json
import selectors
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench import paths


class PeerError(Exception):
    """A worker could not do what it was asked; the message holds what it said."""


class Worker:
    """One process of another (or the same) environment. Use it as a context manager.

    Args:
        python: The interpreter of the environment.
        timeout: Seconds that one request may take before the worker is ended.

    Raises:
        PeerError: There is no such interpreter.
    """

    def __init__(self, python: Path, *, timeout: float = 1800) -> None:
        if not python.exists():
            raise PeerError(f"{python} does not exist; `make peers` makes the environment of the peers")
        self.python = python
        self.timeout = timeout
        paths.SCRATCH.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="bench-worker-", dir=paths.SCRATCH))
        self._saved: dict[int, tuple[np.ndarray, str]] = {}
        with (self._folder / "stderr").open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "bench.worker", self._folder],
                cwd=paths.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def prepare(
        self, case: str, call: str, arrays: Mapping[str, np.ndarray], device: str, options: Mapping[str, Any]
    ) -> None:
        """Send the arrays and let the function `module:name` get ready for the case."""
        paths = {name: self._save(array) for name, array in arrays.items()}
        self.ask("prepare", case=case, call=call, arrays=paths, device=device, options=dict(options))

    def result(self, case: str) -> dict[str, np.ndarray]:
        """Call the case once and fetch the parts of its result."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        parts = self.ask("result", case=case, folder=str(folder))
        loaded = {part: np.load(path) for part, path in parts.items()}
        shutil.rmtree(folder)
        return loaded

    def ask(self, do: str, **request: Any) -> Any:
        """Send one request and wait for its answer.

        Raises:
            PeerError: The worker raised, ended, or took longer than `timeout`.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        about = f"{do} {request['case']!r}" if "case" in request else do
        try:
            self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            self._process.stdin.flush()
        except OSError:
            pass  # It has ended; reading says so.
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self.timeout):
                self._process.kill()
                raise PeerError(f"{self.python}: {about} took longer than {self.timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            said = (self._folder / "stderr").read_text()[-2000:]
            raise PeerError(f"{self.python}: ended with {self._process.wait()} during {about}\n{said}")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.python}: {about} failed\n{answer['error']}")
        return answer["answer"]

    def forget(self) -> None:
        """Drop all cases and arrays, here and there."""
        self.ask("forget")
        for _, path in self._saved.values():
            Path(path).unlink()
        self._saved.clear()

    def close(self) -> None:
        """End the worker and remove its files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except OSError:
            pass  # It has ended with a request unread.
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, array: np.ndarray) -> str:
        """Save an array once, however many cases take it."""
        if id(array) not in self._saved:
            path = self._folder / f"array-{len(self._saved)}.npy"
            np.save(path, array)
            # The array is kept, too: its id names it only as long as it lives.
            self._saved[id(array)] = (array, str(path))
        return self._saved[id(array)][1]
