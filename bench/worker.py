"""The far side of `bench.peers`: calls what it is told to in the environment that it runs in.

It reads one JSON request a line from standard input and answers each with one line. A case is a function
`module:name` that takes the arrays, `device` and options, gets ready, and returns what does the work once.
This file runs in the peers' environment, which has no Lamina and none of its dependencies but NumPy.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench import clock, memory

Ready = Callable[[], Mapping[str, Any]]


class Cases:
    """The cases that were prepared, by name."""

    def __init__(self) -> None:
        self._ready: dict[str, Ready] = {}
        self._timed: dict[str, Callable[[], float]] = {}
        self._device: dict[str, str] = {}

    def prepare(self, case: str, call: str, arrays: dict[str, str], device: str, options: dict[str, Any]) -> None:
        """Load the arrays and let the case get ready."""
        values = {name: np.load(path) for name, path in arrays.items()}
        self._ready[case] = resolve(call)(**values, device=device, **options)
        self._timed[case] = clock.timed(self._ready[case], device)
        self._device[case] = device

    def result(self, case: str, folder: str) -> dict[str, str]:
        """Call the case once and save the parts of its result."""
        paths = {}
        for number, (part, value) in enumerate(self._ready[case]().items()):
            paths[part] = str(Path(folder) / f"{number}.npy")
            np.save(paths[part], np.asarray(value.detach().cpu() if hasattr(value, "detach") else value))
        return paths

    def seconds(self, case: str) -> float:
        """Run one repetition of the case and return the seconds of one call."""
        return self._timed[case]()

    def added(self, case: str) -> int:
        """Call the case once and return the bytes by which it raised this process's memory."""
        return memory.added(self._ready[case], self._device[case])

    def forget(self) -> None:
        """Drop all cases and their arrays."""
        self.__init__()

    def versions(self, packages: list[str]) -> dict[str, str]:
        """Return the versions of distributions in this environment."""
        return {name: version(name) for name in packages}


def resolve(call: str) -> Callable[..., Ready]:
    """Import the function that `module:name` names."""
    module, _, name = call.partition(":")
    return getattr(importlib.import_module(module), name)


def serve(folder: str) -> None:
    """Answer requests until standard input ends; then remove the folder of arrays, since who made it may be gone."""
    # What peers print goes to standard error: the pipe carries answers only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cases = Cases()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": getattr(cases, request.pop("do"))(**request)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        try:
            print(json.dumps(answer), file=answers, flush=True)
        except BrokenPipeError:
            break
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    serve(sys.argv[1])
