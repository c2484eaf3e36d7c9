"""How fast do 8192 random rows come out of a stored site, beside memory maps and memcpy?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import numpy as np
import torch

import lamina
from bench import limits, paths
from bench.command import is_quick
from bench.harness import TIME, Case, as_case, interleave
from bench.table import Table, spread

TOTAL = 2**30
WIDTHS = (768, 4096)
ROWS = 8192
SETS = 16
REPETITIONS = 15
SITE = "mlp.output"
EVICTED = np.zeros(96 << 20, np.uint8)
"""Written over before each call, more than the processor's cache holds: who comes second finds nothing there either."""


def record(width: int, total: int) -> tuple[lamina.Rows, np.ndarray]:
    """Write the same rows as a run and as a plain file."""
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    n = total // (2 * width)
    data = torch.randn(n, width, generator=torch.Generator().manual_seed(width)).half()
    run = lamina.Run.create(paths.SCRATCH / "run")
    with run.writer() as writer:
        for start in range(0, n, 4096):
            writer.append({SITE: data[start : start + 4096]}, step=0)
    data.numpy().tofile(paths.SCRATCH / "plain")
    return run.refresh().rows(SITE), np.memmap(paths.SCRATCH / "plain", np.float16, mode="r", shape=(n, width))


def contenders(rows: lamina.Rows, plain: np.ndarray, count: int) -> dict[str, Callable[[np.ndarray], torch.Tensor]]:
    width = rows.width
    mapped = torch.from_file(str(paths.SCRATCH / "plain"), size=plain.size, dtype=torch.float16).view(-1, width)
    out = torch.zeros(count, width, dtype=torch.float16)
    array = out.numpy()

    def take(at: np.ndarray) -> torch.Tensor:
        np.take(plain, at, axis=0, out=array, mode="clip")
        return out

    return {
        "lamina, out=": lambda at: rows.gather(at, out=out),
        "np.take(memmap, out=)": take,
        "torch map, index_select(out=)": lambda at: torch.index_select(mapped, 0, torch.from_numpy(at), out=out),
        "lamina, fresh": rows.gather,
        "torch map[index], fresh": lambda at: mapped[torch.from_numpy(at)],
        "np memmap[index], fresh": lambda at: torch.from_numpy(plain[at]),
    }


def over(call: Callable[[np.ndarray], torch.Tensor], sets: Iterator[np.ndarray]) -> Case:
    def case() -> dict[str, float]:
        at = next(sets)
        EVICTED.fill(at[0] % 256)
        start = perf_counter()
        call(at)
        return {TIME: perf_counter() - start}

    return case


def endless(sets: list[np.ndarray]) -> Iterator[np.ndarray]:
    while True:
        yield from sets


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    total, count, repetitions = (2**22, 256, 1) if quick else (TOTAL, ROWS, REPETITIONS)
    table, samples = [], {}
    before = torch.get_num_threads()
    for width in WIDTHS:
        rows, plain = record(width, total)
        generator = np.random.default_rng(0)
        sets = [generator.integers(0, len(rows), count) for _ in range(SETS)]
        for _ in rows.blocks(4096):
            pass  # every piece is verified and in the page cache
        for threads in (1, 2):
            torch.set_num_threads(threads)
            calls = contenders(rows, plain, count)
            for at in sets:
                for name, call in calls.items():
                    assert torch.equal(call(at), torch.from_numpy(plain[at])), name
            limit = limits.copy("cpu", 2**20 if quick else 2**28)
            cases = {limit.name: as_case(limit.run)}
            cases |= {name: over(call, endless(sets)) for name, call in calls.items()}
            seconds = interleave(cases, repetitions, f"d = {width}, {threads} threads")
            samples[f"d={width}, threads={threads}"] = seconds
            rate = limit.work / spread(seconds[limit.name][TIME]).median
            size = count * width * 2
            for name, phases in seconds.items():
                took = spread(phases[TIME])
                speed = rate if name == limit.name else size / took.median
                table.append(
                    {
                        "d": width,
                        "threads": threads,
                        "reader": name,
                        "GB/s": speed / 1e9,
                        "rows/s": None if name == limit.name else count / took.median,
                        "% of memcpy": f"{100 * speed / rate:.0f}",
                        "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                    }
                )
    torch.set_num_threads(before)
    shutil.rmtree(paths.SCRATCH)
    Table(
        question="How fast do 8192 random rows of float16 come out of a stored site?",
        columns=["d", "threads", "reader", "GB/s", "rows/s", "% of memcpy", "quartiles, ms"],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions, each over other rows of {SETS} sets; compared first",
            "before each call 96 MiB are written over: nobody finds in the cache what another one left there",
            "1 GiB, warm and verified; memcpy of 256 MiB with the same number of threads in the same run",
            "NumPy copies with one thread whatever is set; fresh: the result is dropped before the next",
        ],
        packages=["lamina", "torch", "numpy"],
        samples=samples,
    ).publish("gather", quick=quick)


if __name__ == "__main__":
    main()
