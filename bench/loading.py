"""How fast does a checkpoint of 1 GB come into memory, beside safetensors and torch.load?"""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter

import safetensors.torch
import torch

from bench import checkpoints, limits
from bench.checkpoints import Tensors
from bench.command import is_quick
from bench.harness import TIME, Case, as_case, interleave
from bench.table import Table, spread

TOTAL = 10**9
REPETITIONS = 7
Load = Callable[[], Tensors]


NEW, THERE, FIRST = "new", "there", "behind another reader"
"""Whether the memory that tensors fill comes from the kernel, page by page, or was used before.

The host of a virtual machine takes back what was free for some seconds, in large pieces first, and whoever uses it next
waits for the host, 50 times as long as for the kernel: a load into new memory is timed twice, behind that of another
reader, which may have left it such memory, and behind its own.
"""


@contextmanager
def memory(kind: str) -> Iterator[None]:
    """Make malloc take the memory of large tensors from the kernel and give it back, or keep what was freed.

    Left alone it does now one and now the other, as it learns from what was freed before: a reader's time would tell
    who read before it.
    """
    trim, mapped = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    library = ctypes.CDLL(None)
    kept = {NEW: (1 << 17, 1 << 17), THERE: (2**31 - 1, 1 << 25)}
    try:
        for name, value in zip((trim, mapped), kept[kind], strict=True):
            assert library.mallopt(name, value) == 1
        yield
    finally:
        for name, value in zip((trim, mapped), kept[NEW], strict=True):  # as malloc begins
            library.mallopt(name, value)
        library.malloc_trim(0)


def owned(load: Load, kind: str) -> Case:
    """Tensors with memory of their own: whoever fills it touches every byte."""

    def case() -> dict[str, float]:
        seconds = {FIRST: timed(load)} if kind == NEW else {}
        return seconds | {TIME: timed(load)}

    return case


def mapped(load: Load) -> Case:
    """Tensors that are maps of a file: every byte is read afterwards, which the time holds."""
    return lambda: {TIME: timed(lambda: touched(load()))}


def timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    result = call()
    took = perf_counter() - start
    del result
    return took


def touched(state: Tensors) -> None:
    for tensor in state.values():
        tensor.view(-1).view(torch.int16).amax()


def is_equal(loaded: Tensors, state: Tensors) -> bool:
    return all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def cloned(load: Load) -> Load:
    return lambda: {name: tensor.clone() for name, tensor in load().items()}


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    total, repetitions = (2**23, 1) if quick else (TOTAL, REPETITIONS)
    table, samples = [], {}
    before = torch.get_num_threads()
    for dtype in (torch.float32, torch.bfloat16):
        state = checkpoints.weights(total, dtype)
        size = sum(tensor.nbytes for tensor in state.values())
        folder = checkpoints.empty("loading")
        raw = checkpoints.saved(folder / "raw", {0: state})
        planes = checkpoints.saved(folder / "planes", {0: state}, coded=True)
        packed = planes.checkpoints().collect()["stored"].sum()
        file, pickled = folder / "model.safetensors", folder / "model.pt"
        safetensors.torch.save_file(state, file)
        torch.save(state, pickled)

        def through_safetensors(backend: str = "mmap", file: str = str(file)) -> Tensors:
            return safetensors.torch.load_file(file, backend=backend)

        name = str(dtype).removeprefix("torch.")
        readers: dict[str, tuple[str, Load]] = {
            "lamina, raw": ("owned", raw.load),
            "lamina, planes": ("owned", planes.load),
            "safetensors load_file, each cloned": ("owned", cloned(through_safetensors)),
            'safetensors load_file, backend="pread"': ("owned", lambda: through_safetensors("pread")),
            "torch.load": ("owned", partial(torch.load, pickled)),
            "lamina, raw, mmap=True": ("mapped", partial(raw.load, mmap=True)),
            "safetensors load_file": ("mapped", through_safetensors),
        }
        for label, (_, load) in readers.items():
            assert is_equal(load(), state), label
        for kind, threads in ((THERE, 1), (THERE, 2), (NEW, 1), (NEW, 2)):
            torch.set_num_threads(threads)
            with memory(kind):
                limit = limits.copy("cpu", 2**20 if quick else 2**28)
                cases: dict[str, Case] = {limit.name: as_case(limit.run)}
                for label, (way, load) in readers.items():
                    cases[label] = owned(load, kind) if way == "owned" else mapped(load)
                    cases[label]()
                seconds = interleave(cases, repetitions, f"{name}, memory is {kind}, {threads} threads")
            samples[f"{name}, {kind}, threads={threads}"] = seconds
            rate = limit.work / spread(seconds[limit.name][TIME]).median
            for label, phases in seconds.items():
                took = spread(phases[TIME])
                speed = rate if label == limit.name else size / took.median
                table.append(
                    {
                        "dtype": name,
                        "memory": kind,
                        "threads": threads,
                        "reader": label,
                        "tensors": "" if label == limit.name else readers[label][0],
                        "GB/s": speed / 1e9,
                        "% of memcpy": f"{100 * speed / rate:.0f}",
                        "behind another reader, GB/s": size / spread(phases[FIRST]).median / 1e9
                        if FIRST in phases
                        else "",
                        "stored": f"{packed / size:.3f}" if label == "lamina, planes" else "",
                        "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                    }
                )
        shutil.rmtree(folder)
    torch.set_num_threads(before)
    Table(
        question="How fast does a checkpoint of 1 GB come into memory?",
        columns=[
            "dtype",
            "memory",
            "threads",
            "reader",
            "tensors",
            "GB/s",
            "% of memcpy",
            "behind another reader, GB/s",
            "stored",
            "quartiles, ms",
        ],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions, warm; every reader's state was compared with what was saved first",
            "memory: what tensors fill is taken from the kernel for each load, as by a process's first load (new), "
            "or was kept by malloc from the one before (there)",
            "new: behind a load by the same reader; behind another reader: that load. The host of a virtual machine "
            "takes back what was free for some seconds, and gives it again at 0.1 to 0.6 GB/s",
            "owned: tensors in memory of their own, freed before the next; mapped: maps of the file, every byte read",
            "lamina verifies a block when it is first read: in the comparison, not in what is timed",
            "memcpy of 256 MiB into memory that has its pages, with the same number of threads in the same run",
            "planes: the same run after `compact` and `gc`; stored: its bytes for a byte of the state",
            "the weights are normal numbers; safetensors and torch.load copy with one thread whatever is set",
        ],
        packages=["lamina", "torch", "safetensors"],
        samples=samples,
    ).publish("loading", quick=quick)


if __name__ == "__main__":
    main()
