"""What a peer might do when it is called: compute, print, raise, end, hang, take memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import numpy as np


def scaled(x: np.ndarray, *, device: str, factor: float) -> Callable[[], dict[str, np.ndarray]]:
    return lambda: {"scaled": factor * x, "sum": np.asarray(x.sum())}


def printing(*, device: str) -> Callable[[], dict[str, np.ndarray]]:
    print("printed while getting ready")

    def run() -> dict[str, np.ndarray]:
        print("printed while running")
        return {"one": np.ones(1)}

    return run


def raising(*, device: str) -> Callable[[], dict[str, np.ndarray]]:
    def run() -> dict[str, np.ndarray]:
        raise ValueError("this peer knows no such kernel")

    return run


def ending(*, device: str) -> Callable[[], dict[str, np.ndarray]]:
    def run() -> dict[str, np.ndarray]:
        sys.stderr.write("out of luck\n")
        sys.stderr.flush()
        os._exit(3)

    return run


def hanging(*, device: str) -> Callable[[], dict[str, np.ndarray]]:
    def run() -> dict[str, np.ndarray]:
        time.sleep(60)
        return {}

    return run


def taking(*, device: str, megabytes: int) -> Callable[[], dict[str, np.ndarray]]:
    # More than the call takes, and gone before it: the meter must not count this.
    np.ones(3 * megabytes * 10**6, np.uint8)

    def run() -> dict[str, np.ndarray]:
        return {"last": np.ones(megabytes * 10**6, np.uint8)[-1:]}

    return run
