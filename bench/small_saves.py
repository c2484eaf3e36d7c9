"""What do 10,000 saves of 100 kB cost, and how many files do they leave?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import safetensors.torch
import torch

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread

SAVES, TENSORS, LENGTH = 10_000, 5, 5000
REPETITIONS = 3
LAMINA = "lamina, durable at the end"
ONE = "safetensors, one file each"
State = dict[str, torch.Tensor]


def state() -> State:
    """100 kB in five tensors."""
    generator = torch.Generator().manual_seed(0)
    return {f"w{at}": torch.randn(LENGTH, generator=generator) for at in range(TENSORS)}


def change(state: State) -> None:
    """As a step does: the next save holds other bytes."""
    for tensor in state.values():
        tensor.add_(0.001)


def through_lamina(saves: int, folder: Path) -> State:
    own = state()
    with lamina.Run.create(folder / "run").writer() as writer:
        for step in range(saves):
            change(own)
            writer.save({"model": own}, step=step)
    return own


def one_each(save: Callable[[State, Path], Any], *, sync: bool) -> Callable[[int, Path], State]:
    def all_of(saves: int, folder: Path) -> State:
        own = state()
        for step in range(saves):
            change(own)
            save(own, path := folder / f"step-{step}")
            if sync:
                for place in (path, folder):
                    descriptor = os.open(place, os.O_RDONLY)
                    os.fsync(descriptor)
                    os.close(descriptor)
        return own

    return all_of


WAYS: dict[str, Callable[[int, Path], State]] = {
    LAMINA: through_lamina,
    ONE: one_each(safetensors.torch.save_file, sync=False),
    "torch.save, one file each": one_each(torch.save, sync=False),
    "safetensors, one file each, fsync": one_each(safetensors.torch.save_file, sync=True),
}


def in_an_empty_folder(way: Callable[[int, Path], State], saves: int) -> Case:
    def case() -> dict[str, float]:
        shutil.rmtree(paths.SCRATCH, ignore_errors=True)
        paths.SCRATCH.mkdir(parents=True)
        start = perf_counter()
        way(saves, paths.SCRATCH)
        took = perf_counter() - start
        return {"time": took, "files": float(sum(path.is_file() for path in paths.SCRATCH.rglob("*")))}

    return case


def check(name: str, expected: State, saves: int) -> None:
    """The last save is what was saved last."""
    path = paths.SCRATCH / f"step-{saves - 1}"
    if name == LAMINA:
        found = lamina.open(paths.SCRATCH / "run").load("last")
    else:
        found = torch.load(path) if name.startswith("torch") else safetensors.torch.load_file(path)
    Within(0).check(name, found, expected)


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    saves, repetitions = (20, 1) if quick else (SAVES, REPETITIONS)
    torch.set_num_threads(1)
    for name, way in WAYS.items():
        shutil.rmtree(paths.SCRATCH, ignore_errors=True)
        paths.SCRATCH.mkdir(parents=True)
        check(name, way(20, paths.SCRATCH), 20)
    cases = {name: in_an_empty_folder(way, saves) for name, way in WAYS.items()}
    seconds = interleave(cases, repetitions, "small saves")
    shutil.rmtree(paths.SCRATCH)
    one = spread(seconds[ONE]["time"]).median
    rows = []
    for name, phases in seconds.items():
        took = spread(phases["time"])
        rows.append(
            {
                "way": name,
                "a save, us": 1e6 * took.median / saves,
                "quartiles, us": f"{1e6 * took.lower / saves:.3g} to {1e6 * took.upper / saves:.3g}",
                "of one file each": f"{took.median / one:.2f}",
                "files": round(spread(phases["files"]).median),
            }
        )
    Table(
        question="What do 10,000 saves of 100 kB cost, and how many files do they leave?",
        columns=["way", "a save, us", "quartiles, us", "of one file each", "files"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions of {saves} saves of {TENSORS} float32 tensors of {LENGTH}",
            "every tensor is changed before each save, by the same loop in each way",
            "lamina: durable within a second of each save, and all of it when the time is taken",
            "creating the run and closing the writer counts too",
            "one file each: in the page cache when the time is taken; durable only where it says fsync",
        ],
        packages=["lamina", "torch", "safetensors"],
        samples={name: dict(phases) for name, phases in seconds.items()},
    ).publish("small_saves", quick=quick)


if __name__ == "__main__":
    main()
