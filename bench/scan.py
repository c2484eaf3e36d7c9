"""How fast does a whole stored site come into a tensor that is there, beside memcpy?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch

from bench import gather, limits, paths
from bench.command import is_quick
from bench.harness import TIME, Case, as_case, interleave
from bench.table import Table, spread
from lamina import Rows

REPETITIONS = 9


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    total, repetitions = (2**22, 1) if quick else (gather.TOTAL, REPETITIONS)
    table, samples = [], {}
    before = torch.get_num_threads()
    for width in gather.WIDTHS:
        rows, plain = gather.record(width, total)
        out = torch.zeros(len(rows), width, dtype=torch.float16)
        array = out.numpy()

        def ours(rows: Rows = rows, out: torch.Tensor = out) -> None:
            rows.gather(slice(None), out=out)

        def copied(plain: np.ndarray = plain, array: np.ndarray = array) -> None:
            array[:] = plain

        for threads in (1, 2):
            torch.set_num_threads(threads)
            ours()
            assert torch.equal(out, torch.from_numpy(np.array(plain)))
            copied()
            limit = limits.copy("cpu", out.numel() * 2)

            def timed(call: Callable[[], None]) -> Case:
                def case() -> dict[str, float]:
                    start = perf_counter()
                    call()
                    return {TIME: perf_counter() - start}

                return case

            cases = {limit.name: as_case(limit.run), "lamina, out=": timed(ours), "NumPy memmap, copied": timed(copied)}
            seconds = interleave(cases, repetitions, f"d = {width}, {threads} threads")
            samples[f"d={width}, threads={threads}"] = seconds
            fastest = spread(seconds[limit.name][TIME]).median
            for name, phases in seconds.items():
                took = spread(phases[TIME])
                table.append(
                    {
                        "d": width,
                        "threads": threads,
                        "reader": name,
                        "GB/s": limit.work / took.median / 1e9,
                        "% of memcpy": f"{100 * fastest / took.median:.0f}",
                        "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
                    }
                )
    torch.set_num_threads(before)
    shutil.rmtree(paths.SCRATCH)
    Table(
        question="How fast does a whole stored site come into a tensor that is there?",
        columns=["d", "threads", "reader", "GB/s", "% of memcpy", "quartiles, ms"],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions; 1 GiB of float16, warm and verified, every byte copied",
            "memcpy of as many bytes with the same number of threads in the same run; NumPy copies with one",
        ],
        packages=["lamina", "torch", "numpy"],
        samples=samples,
    ).publish("scan", quick=quick)


if __name__ == "__main__":
    main()
