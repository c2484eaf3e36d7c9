"""How fast does a shuffled epoch come: out of memory, through a DataLoader's workers, and from a disk?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

import lamina
from bench import caches, limits, paths
from bench.agreement import DisagreementError
from bench.command import parser
from bench.harness import TIME, Case, as_case, interleave
from bench.limits import PIECE
from bench.table import Table, spread

TOTAL = 2**30
COLD = 8 * 2**30
WIDTH, BATCH = 768, 256
ROW = 2 * WIDTH
REPETITIONS, COLD_REPETITIONS = 9, 5
SITE = "mlp.output"
KINDS = 4096
"""So many different rows there are but for the number that each bears."""

LOADER = "the loader, tensors that nobody filled"

Loop = Callable[[], Iterable[torch.Tensor]]
"""Begins an epoch."""


def numbered(start: int, stop: int) -> np.ndarray:
    """Rows of float16 that bear their number in their first eight bytes."""
    kinds = np.random.default_rng(0).standard_normal((KINDS, WIDTH), np.float32).astype(np.float16)
    rows = kinds[np.arange(start, stop) % KINDS]
    rows.view(np.int64)[:, 0] = np.arange(start, stop)
    return rows


def check(name: str, batches: Iterable[torch.Tensor], rows: int) -> None:
    """Look whether an epoch has every row once, to the bit, and in another order than the stored one.

    Raises:
        DisagreementError: It has not.
    """
    kinds, seen, ascending = numbered(0, KINDS), np.zeros(rows, dtype=bool), True
    for batch in batches:
        array = batch.numpy()
        number = array.view(np.int64)[:, 0].copy()
        alike = array.dtype == np.float16 and np.array_equal(
            array.view(np.int64)[:, 1:], kinds.view(np.int64)[number % KINDS, 1:]
        )
        if not alike or seen[number].any() or np.unique(number).size < number.size:
            raise DisagreementError(f"{name}: rows that differ, or come twice")
        seen[number] = True
        ascending = ascending and bool((np.diff(number) > 0).all())
    if not seen.all() or ascending:
        raise DisagreementError(f"{name}: {int((~seen).sum())} rows did not come, or none was shuffled")


def write_run(path: Path, rows: int) -> lamina.Run:
    run = lamina.Run.create(path)
    with run.writer() as writer:
        for start in range(0, rows, KINDS):
            writer.append({SITE: numbered(start, min(rows, start + KINDS))}, step=0)
    return run.refresh()


def write_plain(path: Path, rows: int) -> np.ndarray:
    with path.open("wb") as file:
        for start in range(0, rows, KINDS):
            numbered(start, min(rows, start + KINDS)).tofile(file)
    return np.memmap(path, np.float16, mode="r", shape=(rows, WIDTH))


class Taken:
    """A dataset that takes the rows of a batch out of a memmap."""

    def __init__(self, plain: np.ndarray) -> None:
        self._plain = plain

    def __len__(self) -> int:
        return len(self._plain)

    def __getitem__(self, at: list[int]) -> torch.Tensor:
        return torch.from_numpy(np.take(self._plain, at, axis=0))


class Unfilled:
    """A dataset of tensors of a batch's size that nobody filled: what the loader takes by itself."""

    def __getitem__(self, at: list[int]) -> torch.Tensor:
        return torch.empty(len(at), WIDTH, dtype=torch.float16)


def in_memory(rows: lamina.Rows, plain: np.ndarray) -> dict[str, Loop]:
    mapped = torch.from_file(str(plain.filename), size=plain.size, dtype=torch.float16).view(-1, WIDTH)  # pyright: ignore[reportAttributeAccessIssue]
    batches = rows.batches(BATCH, seed=0)

    def permuted(take: Callable[[np.ndarray], torch.Tensor]) -> Loop:
        def loop() -> Iterator[torch.Tensor]:
            order = np.random.default_rng(0).permutation(len(plain))
            yield from (take(order[at : at + BATCH]) for at in range(0, len(order), BATCH))

        return loop

    return {
        "lamina, rows.batches": lambda: batches,
        "np.take(memmap)": permuted(lambda at: torch.from_numpy(np.take(plain, at, axis=0))),
        "torch map[index]": permuted(lambda at: mapped[torch.from_numpy(at)]),
    }


def loaders(rows: lamina.Rows, plain: np.ndarray, workers: int) -> dict[str, Loop]:
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers, "persistent_workers": True}
    taken: Any = Taken(plain)
    sampler: Any = BatchSampler(RandomSampler(taken), BATCH, drop_last=False)
    ours: Any = DataLoader(rows.dataset(BATCH, seed=0), **options)
    theirs: Any = DataLoader(taken, sampler=sampler, **options)
    unfilled: Any = Unfilled()
    nobodys: Any = DataLoader(unfilled, sampler=sampler, **options)
    return {LOADER: lambda: nobodys, "lamina, rows.dataset": lambda: ours, "np.take(memmap)": lambda: theirs}


def epoch(loop: Loop) -> Case:
    """All batches of an epoch, each dropped when the next one comes."""

    def case() -> dict[str, float]:
        start = perf_counter()
        for _ in loop():
            pass
        return {TIME: perf_counter() - start}

    return case


def in_sequence(files: Sequence[Path]) -> None:
    """Read files from their start to their end."""
    buffer = bytearray(PIECE)
    for path in files:
        file = os.open(path, os.O_RDONLY)
        at = 0
        while got := os.preadv(file, [buffer], at):
            at += got
        os.close(file)


def from_disk(path: Path, size: int, repetitions: int) -> tuple[dict[str, dict[str, list[float]]], str | None]:
    """The seconds of an epoch in block order out of a cold run, and of reading its files; or why there are none."""
    rows = size // ROW
    free = shutil.disk_usage(paths.SCRATCH).free
    if free < 1.1 * size:
        return {}, f"{size / 2**30:.3g} GiB were asked for, the disk has room for {free / 2**30:.3g}"
    write_run(path, rows)
    files = sorted((path / "segments").iterdir())

    def blocks(io: Any) -> Iterable[torch.Tensor]:
        # opened for the epoch alone: what is mapped cannot be dropped from the cache
        return lamina.open(path, io=io).rows(SITE).batches(BATCH, seed=0, order="block")

    def cold(work: Callable[[], None]) -> Case:
        def case() -> dict[str, float]:
            if reason := caches.drop(files):
                raise RuntimeError(reason)
            start = perf_counter()
            work()
            return {TIME: perf_counter() - start}

        return case

    def read(io: Any) -> Callable[[], None]:
        def work() -> None:
            for _ in blocks(io):
                pass

        return work

    check("block order", blocks("auto"), rows)
    if reason := caches.drop(files):
        return {}, reason
    cases = {"files, one after another": cold(lambda: in_sequence(files))}
    cases |= {f'lamina, order="block", io="{io}"': cold(read(io)) for io in ("auto", "pread")}
    return interleave(cases, repetitions, "cold"), None


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--cold-bytes", type=int, default=COLD, help="the size of the run that is read from the disk")
    given = options.parse_args(argv)
    quick = given.quick
    total, cold, repetitions = (2**21, 2**21, 1) if quick else (TOTAL, given.cold_bytes, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    table, samples, notes = [], {}, []

    def add(what: str, seconds: dict[str, dict[str, list[float]]], limit: str, work: float, size: int) -> None:
        samples[what] = seconds
        rate = work / spread(seconds[limit][TIME]).median
        for name, phases in seconds.items():
            took = spread(phases[TIME])
            speed = rate if name == limit else size / took.median
            table.append(
                {
                    "epoch": what,
                    "reader": name,
                    "GB/s": speed / 1e9,
                    "% of the limit": f"{100 * speed / rate:.0f}",
                    "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                }
            )

    n = total // ROW
    rows, plain = write_run(paths.SCRATCH / "run", n).rows(SITE), write_plain(paths.SCRATCH / "plain", n)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if quick else 2)
    limit = limits.copy("cpu", 2**20 if quick else 2**28)
    kinds = {"exact order, warm": in_memory(rows, plain)}
    kinds |= {
        f"exact order, warm, DataLoader, {w} workers": loaders(rows, plain, w) for w in ((1,) if quick else (1, 2))
    }
    for what, loops in kinds.items():
        for name, loop in loops.items():
            if name == LOADER:
                assert sum(map(len, loop())) == n
            else:
                check(f"{what}: {name}", loop(), n)
        cases = {name: epoch(loop) for name, loop in loops.items()}
        if LOADER in cases:
            add(what, interleave(cases, repetitions, what), LOADER, n * ROW, n * ROW)
        else:
            cases = {limit.name: as_case(limit.run)} | cases
            add(what, interleave(cases, repetitions, what), limit.name, limit.work, n * ROW)
    torch.set_num_threads(before)
    del rows, plain, kinds
    seconds, reason = from_disk(paths.SCRATCH / "cold", cold, 1 if quick else COLD_REPETITIONS)
    if reason is None:
        size = cold // ROW * ROW
        add(f"block order, {cold / 2**30:.3g} GiB, cold", seconds, "files, one after another", size, size)
        notes = [
            "cold: dropped from the page cache before every repetition, as mincore says; a host may still have them",
            f"the limit of the cold epoch reads the same files in pieces of {PIECE >> 20} MiB",
        ]
    else:
        notes = [f"block order from a cold disk was left out: {reason}"]
    shutil.rmtree(paths.SCRATCH)
    Table(
        question="How fast does a shuffled epoch come?",
        columns=["epoch", "reader", "GB/s", "% of the limit", "quartiles, ms"],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions ({COLD_REPETITIONS} of the cold ones); batches of {BATCH} rows of "
            f"{WIDTH} float16, each dropped when the next one comes; every row came once and was right before",
            f"warm: {total / 2**30:.3g} GiB in the page cache, verified, 2 threads",
            "the limit of the warm epochs is memcpy of 256 MiB with as many threads in the same run; of those "
            "through a DataLoader the same loader, with tensors that nobody filled",
            "through a DataLoader: batch_size=None, workers that persist, each asked for an epoch before",
            *notes,
        ],
        packages=["lamina", "torch", "numpy"],
        samples=samples,
    ).publish("epoch", quick=quick)


if __name__ == "__main__":
    main()
