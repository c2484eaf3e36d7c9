"""What the machine itself can do: the speeds that a table's figures are percents of."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from bench.clock import timed

PIECE = 8 * 2**20
"""Bytes of one read or write."""

_DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        name: How tables call it.
        unit: What its speed is told in, 1e9 of it a second.
        work: How many of the unit one call does.
        run: Runs one repetition and returns the seconds of a call.
    """

    name: str
    unit: str
    work: float
    run: Callable[[], float]

    def speed(self, seconds: float) -> str:
        """Say how fast that is."""
        return f"{self.work / seconds / 1e9:.3g} G{self.unit}/s"


def gemm(kind: str, device: str, size: int | None = None) -> Limit:
    """The product of two square matrices by the library of the device: 2 size^3 floating-point operations.

    Args:
        kind: `"fp64"`, `"fp32"`, `"tf32"` or `"bf16"`; `"fp32"` is always the full precision.
        device: Where.
        size: None takes 2048 on the CPU and 8192 on a GPU.
    """
    size = size or (8192 if device.startswith("cuda") else 2048)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, _DTYPES[kind]) for _ in range(2))
    out = torch.empty_like(a)

    def product() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
        try:
            torch.mm(a, b, out=out)
        finally:
            torch.set_float32_matmul_precision(before)

    return Limit(f"GEMM {kind}", "FLOP", 2 * size**3, timed(product, device))


def exp(size: int = 2**17, rounds: int = 400) -> Limit:
    """The exponential of float32 numbers that lie in the CPU's cache: what a kernel like RBF needs a pair."""
    x = torch.rand(size, generator=torch.Generator().manual_seed(0))
    out = torch.empty_like(x)

    def many() -> None:
        # one round takes 50 us, in which the waking of a thread would count
        for _ in range(rounds):
            torch.exp(x, out=out)

    return Limit("exp fp32", "exp", size * rounds, timed(many, "cpu"))


def copy(device: str, size: int = 2**28) -> Limit:
    """A copy from memory to memory of the device; a byte that is read and written counts once."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    name = "device copy" if device.startswith("cuda") else "memcpy"
    return Limit(name, "B", size, timed(lambda: target.copy_(source), device))


def durable_write(folder: Path, size: int = 2**28) -> Limit:
    """Writing a new file in pieces of 8 MiB, and fdatasync."""
    view = _noise(size)
    path = folder / "limit-write"

    def run() -> float:
        folder.mkdir(parents=True, exist_ok=True)
        start = perf_counter()
        durable = _write(path, view)
        path.unlink()
        return durable - start

    return Limit("write + fdatasync", "B", size, run)


def read(folder: Path, *, cold: bool, size: int = 2**28) -> Limit:
    """Reading a file in pieces of 8 MiB, out of the page cache (`cold`: with the cache emptied of it before)."""
    path = folder / "limit-read"
    buffer = bytearray(PIECE)

    def run() -> float:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != size:
            _write(path, _noise(size))
        file = os.open(path, os.O_RDONLY)
        if cold:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            _read(file, buffer)
        start = perf_counter()
        read = _read(file, buffer)
        seconds = perf_counter() - start
        os.close(file)
        assert read == size, f"{read} bytes read of {size}"
        return seconds

    return Limit("read, cold" if cold else "read, warm", "B", size, run)


def _noise(size: int) -> memoryview:
    """Bytes that nothing on the way to the disk can compress."""
    return np.random.default_rng(0).integers(0, 256, size, np.uint8).data


def _write(path: Path, view: memoryview) -> float:
    """Write a new file and return the time of the clock at which it was durable."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for at in range(0, len(view), PIECE):
        piece = view[at : at + PIECE]
        while piece:
            piece = piece[os.write(file, piece) :]
    os.fdatasync(file)
    durable = perf_counter()
    os.close(file)
    return durable


def _read(file: int, buffer: bytearray) -> int:
    """Read a file from its start to its end into a buffer, over and over, and return its length."""
    at = 0
    while got := os.preadv(file, [buffer], at):
        at += got
    return at
