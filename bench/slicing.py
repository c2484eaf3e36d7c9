"""How fast does one row block of one tensor come out of many checkpoints, beside safetensors files?

Once from 1,000 files of 2 MB, once from 50 of 50 MB: so many of both libraries lie in memory, as warm reads need it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import safe_open

import lamina
from bench import checkpoints
from bench.checkpoints import Tensors
from bench.command import is_quick
from bench.harness import TIME, Case, interleave
from bench.table import Table, spread
from lamina.progress import track

WIDTH = 512


class Kind(NamedTuple):
    """What is saved: at so many steps so many layers of so many rows, and whether a compacted run is measured too."""

    steps: int
    layers: int
    rows: int
    coded: bool


SMALL = Kind(1000, 4, 256, coded=True)
LARGE = Kind(50, 12, 2048, coded=False)
ROWS = slice(128, 192)
"""64 rows of 2 KB: one block of 128 KiB."""
NAME = "3.weight"
REPETITIONS = 7
WHOLE = 25
"""Files that are loaded whole a repetition: all of them would take minutes."""
BLOCK = 128 * 1024
EVERY = 'safetensors load_file(backend="pread")'
ONE = "lamina, raw"


def states(steps: int, layers: int, rows: int) -> Iterator[Tensors]:
    """A model that moves a little at each step, always the same tensors."""
    generator = torch.Generator().manual_seed(0)
    state = {f"{layer}.weight": 0.05 * torch.randn(rows, WIDTH, generator=generator) for layer in range(layers)}
    for step in range(steps):
        yield state
        for tensor in state.values():
            tensor.mul_(1 + 1e-3 * (step % 7 - 3)).add_(1e-4)


def timed(call: Callable[[], object], times: float = 1.0) -> Case:
    def case() -> dict[str, float]:
        start = perf_counter()
        call()
        return {TIME: times * (perf_counter() - start)}

    return case


def measure(kind: Kind, repetitions: int) -> tuple[list[dict[str, Any]], Any]:
    """Save the steps in all ways, compare what is read, and time it."""
    folder = checkpoints.empty("slicing")
    run, files, expected = lamina.Run.create(folder / "raw"), [], []
    steps, layers, rows, coded = kind
    size = layers * rows * WIDTH * 4
    with run.writer() as writer:
        for step, state in enumerate(
            track(states(steps, layers, rows), f"saving {steps} of {size / 1e6:.0f} MB", steps)
        ):
            writer.save({"model": state}, step=step)
            expected.append(state[NAME][ROWS].clone())
            files.append(folder / f"{step}.safetensors")
            safetensors.torch.save_file(state, files[-1])
    expected, runs = torch.stack(expected), {ONE: run.refresh()}
    if coded:
        runs["lamina, compacted"] = checkpoints.compacted(run.copy(folder / "coded", progress=False))

    def sliced(backend: str) -> torch.Tensor:
        blocks = []
        for file in files:
            with safe_open(str(file), framework="pt", backend=backend) as opened:
                blocks.append(opened.get_slice(NAME)[ROWS])
        return torch.stack(blocks)

    def whole(some: list[Path], backend: str) -> torch.Tensor:
        loaded = (safetensors.torch.load_file(file, backend=backend) for file in some)
        return torch.stack([state[NAME][ROWS].clone() for state in loaded])

    def ours(run: lamina.Run) -> torch.Tensor:
        return run.tensor(NAME, rows=ROWS)

    calls: dict[str, Callable[[], torch.Tensor]] = {}
    for name, one in runs.items():
        calls[name] = lambda run=one: ours(run)
        calls[f"{name}, opened anew"] = lambda path=one.path: ours(lamina.open(path))
    calls["safe_open().get_slice"] = lambda: sliced("mmap")
    calls['safe_open(backend="pread").get_slice'] = lambda: sliced("pread")
    calls["safetensors load_file, mapped"] = lambda: whole(files, "mmap")
    reads = {}
    for name, call in calls.items():
        assert torch.equal(call(), expected), name
    for name, one in runs.items():
        fresh = lamina.open(one.path)
        ours(fresh)
        reads[name] = fresh._snapshot.chunk_bytes_read
    share = min(WHOLE, steps)
    assert torch.equal(whole(files[:share], "pread"), expected[:share])
    cases = {name: timed(call) for name, call in calls.items()}
    cases[EVERY] = timed(lambda: whole(files[:share], "pread"), steps / share)
    seconds = interleave(cases, repetitions, f"{steps} steps of {size / 1e6:.0f} MB")
    slowest, table = spread(seconds[EVERY][TIME]).median, []
    for name, phases in seconds.items():
        took = spread(phases[TIME])
        table.append(
            {
                "a file has, MB": f"{size / 1e6:.0f}",
                "steps": steps,
                "reader": name,
                "median, ms": 1e3 * took.median,
                "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                "us a step": 1e6 * took.median / steps,
                "times files loaded whole": slowest / took.median,
                "bytes read / asked for": reads[name] / expected.nbytes if name in reads else None,
            }
        )
    bound = 2 * expected.nbytes + 2 * BLOCK * steps
    assert all(read <= bound for read in reads.values()), (reads, bound)
    shutil.rmtree(folder)
    return table, seconds


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    small, large, repetitions = SMALL, LARGE, REPETITIONS
    if quick:
        small, large, repetitions = SMALL._replace(steps=20), LARGE._replace(steps=3, rows=256), 1
    table, samples = [], {}
    for kind in (small, large):
        rows, samples[f"{kind.steps} steps"] = measure(kind, repetitions)
        table += rows
    Table(
        question="How fast does one row block of one tensor come out of many checkpoints?",
        columns=list(table[0]),
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions, warm; compared first. Every save is a state in float32 of which "
            "all tensors changed",
            "a block of 64 rows, 128 KiB, at every step: `run.tensor(name, rows=…)`; lamina on the threads torch has",
            f"{EVERY}: every tensor of a file comes into memory of its own; {WHOLE} files a repetition, told for all",
            "load_file, mapped: a map of each file, of which only the block is read; not what loading a file is",
            "opened anew: the time holds `lamina.open`, which reads the log, and every block is verified again",
            "compacted: planes and differences",
            "bytes read: what is verified, in a run that was opened for it; never above twice those asked for and two "
            "blocks a step",
        ],
        packages=["lamina", "torch", "safetensors"],
        samples={"seconds": samples},
    ).publish("slicing", quick=quick)


if __name__ == "__main__":
    main()
