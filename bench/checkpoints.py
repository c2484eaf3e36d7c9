"""Checkpoints that benchmarks of reading ask for: the same state in each library's files."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

import lamina
from bench import paths

Tensors = dict[str, torch.Tensor]


def empty(name: str) -> Path:
    """Return an empty folder in the benchmarks' scratch."""
    folder = paths.SCRATCH / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def weights(size: int, dtype: torch.dtype, seed: int = 0) -> Tensors:
    """Return normal numbers like those of a model: `size` bytes in layers of four matrices and a bias."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"qkv": (3072, 1024), "out": (1024, 1024), "up": (4096, 1024), "down": (1024, 4096), "bias": (1024,)}
    state: Tensors = {}
    left, layer = size, 0
    while left > 0:
        for name, shape in shapes.items():
            if left <= 0:
                break
            state[f"{layer}.{name}"] = (0.02 * torch.randn(shape, generator=generator)).to(dtype)
            left -= state[f"{layer}.{name}"].nbytes
        layer += 1
    return state


def saved(folder: Path, states: dict[int, Tensors], *, coded: bool = False) -> lamina.Run:
    """Save states by step into a new run, and compact it if they are to be coded."""
    run = lamina.Run.create(folder)
    with run.writer() as writer:
        for step, state in states.items():
            writer.save({"model": state}, step=step)
    run.refresh()
    return compacted(run) if coded else run


def compacted(run: lamina.Run) -> lamina.Run:
    """Code a run's chunks, and remove those that stood there before: else reading would take them."""
    run.compact(progress=False)
    # the first marks what is left behind, the second removes it
    for _ in range(2):
        run.gc(grace=0, progress=False)
    return run
