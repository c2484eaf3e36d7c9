"""How fast does one row block of one tensor come out of 1,000 checkpoints, beside safetensors files?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import safetensors.torch
import torch
from safetensors import safe_open

import lamina
from bench import checkpoints
from bench.checkpoints import Tensors
from bench.command import is_quick
from bench.harness import TIME, Case, interleave
from bench.table import Table, spread

STEPS = 1000
ROWS = slice(128, 192)
"""64 rows of 2 KB: one block of 128 KiB."""
NAME = "3.weight"
REPETITIONS = 7
WHOLE = 25
"""Files that are loaded whole a repetition: all of them would take minutes."""
BLOCK = 128 * 1024


def states(steps: int) -> dict[int, Tensors]:
    """A small model of four layers (2 MB) that moves a little at each step."""
    generator = torch.Generator().manual_seed(0)
    state = {f"{layer}.weight": 0.05 * torch.randn(256, 512, generator=generator) for layer in range(4)}
    kept = {}
    for step in range(steps):
        kept[step] = state
        state = {name: tensor + 1e-4 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}
    return kept


def timed(call: Callable[[], object], times: float = 1.0) -> Case:
    def case() -> dict[str, float]:
        start = perf_counter()
        call()
        return {TIME: times * (perf_counter() - start)}

    return case


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    steps, repetitions = (20, 1) if quick else (STEPS, REPETITIONS)
    saved = states(steps)
    expected = torch.stack([state[NAME][ROWS] for state in saved.values()])
    folder = checkpoints.empty("slicing")
    runs = {
        "lamina, raw": checkpoints.saved(folder / "raw", saved),
        "lamina, compacted": checkpoints.saved(folder / "coded", saved, coded=True),
    }
    files = [folder / f"{step}.safetensors" for step in saved]
    for file, state in zip(files, saved.values(), strict=True):
        safetensors.torch.save_file(state, file)

    def sliced(backend: str) -> torch.Tensor:
        rows = []
        for file in files:
            with safe_open(str(file), framework="pt", backend=backend) as opened:
                rows.append(opened.get_slice(NAME)[ROWS])
        return torch.stack(rows)

    def whole(some: list[Path]) -> torch.Tensor:
        return torch.stack([safetensors.torch.load_file(file)[NAME][ROWS].clone() for file in some])

    def loaded(some: list[Path]) -> torch.Tensor:
        states = [safetensors.torch.load_file(file, backend="pread") for file in some]
        return torch.stack([state[NAME][ROWS] for state in states])

    def ours(run: lamina.Run) -> torch.Tensor:
        return run.tensor(NAME, rows=ROWS)

    calls: dict[str, Callable[[], torch.Tensor]] = {}
    for name, run in runs.items():
        calls[name] = lambda run=run: ours(run)
        calls[f"{name}, opened anew"] = lambda path=run.path: ours(lamina.open(path))
    calls["safe_open().get_slice"] = lambda: sliced("mmap")
    calls['safe_open(backend="pread").get_slice'] = lambda: sliced("pread")
    calls["safetensors load_file, mapped"] = lambda: whole(files)
    reads = {}
    for name, call in calls.items():
        assert torch.equal(call(), expected), name
    for name, run in runs.items():
        fresh = lamina.open(run.path)
        ours(fresh)
        reads[name] = fresh._snapshot.chunk_bytes_read
    cases = {name: timed(call) for name, call in calls.items()}
    share = min(WHOLE, steps)
    cases["safetensors load_file, whole"] = timed(lambda: loaded(files[:share]), steps / share)
    seconds = interleave(cases, repetitions, f"{steps} steps")
    asked = expected.nbytes
    slowest = spread(seconds["safetensors load_file, whole"][TIME]).median
    table = []
    for name, phases in seconds.items():
        took = spread(phases[TIME])
        table.append(
            {
                "reader": name,
                "median, ms": 1e3 * took.median,
                "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                "us a step": 1e6 * took.median / steps,
                "times load_file, whole": slowest / took.median,
                "bytes read / asked for": reads[name] / asked if name in reads else None,
            }
        )
    stored = {name: sum(run.checkpoints().collect()["stored"].to_list()) for name, run in runs.items()}
    shutil.rmtree(folder)
    bound = 2 * asked + 2 * BLOCK * steps
    assert all(read <= bound for read in reads.values()), (reads, bound)
    columns = ["reader", "median, ms", "quartiles, ms", "us a step", "times load_file, whole", "bytes read / asked for"]
    planes = "compacted: {:.2f} of the bytes; planes and differences"
    Table(
        question=f"How fast does one row block of one tensor come out of {STEPS:,} checkpoints?",
        columns=columns,
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions, warm; compared first. {steps} saves of a state of 2 MB in float32",
            "a block of 64 rows, 128 KiB, at every step: `run.tensor(name, rows=…)`; lamina on the threads torch has",
            f"load_file, whole: every tensor in memory of its own, {share} files a repetition, told for all {steps}",
            "opened anew: the time holds `lamina.open`, which reads the log, and every block is verified again",
            planes.format(stored["lamina, compacted"] / stored["lamina, raw"]),
            "bytes read: what is verified, in a run that was opened for it; never above twice those asked for and two "
            "blocks a step",
        ],
        packages=["lamina", "torch", "safetensors"],
        samples={"seconds": seconds},
    ).publish("slicing", quick=quick)


if __name__ == "__main__":
    main()
