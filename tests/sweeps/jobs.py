"""What the tests of executors let them compute; workers import it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch


class PickyError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def product(seed: int) -> torch.Tensor:
    """Return sums whose last bits depend on how many threads share them."""
    x = torch.randn(500, 300, generator=torch.Generator().manual_seed(seed))
    return torch.stack([(x.T @ x).sum(), x.sum(), x.logsumexp(0).sum()])


def threads() -> int:
    return torch.get_num_threads()


def fail(message: str) -> None:
    raise ZeroDivisionError(message)


def fail_picky() -> None:
    raise PickyError("too", "picky")


def die(folder: Path, times: int) -> str:
    """Kill the own process the first few times."""
    if len(list(folder.iterdir())) < times:
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def leave(code: int) -> None:
    os._exit(code)


def sleep(seconds: float, path: Path) -> int:
    """Say who sleeps, and have a child that sleeps too."""
    path.write_text(f"{os.getpid()} {os.posix_spawnp('sleep', ['sleep', str(seconds)], os.environ)}")
    time.sleep(seconds)
    return os.getpid()


def unpicklable() -> Any:
    return (each for each in "abc")
