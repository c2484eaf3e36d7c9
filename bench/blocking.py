"""How long does an append hold its caller, beside one memcpy of the same bytes?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from time import perf_counter

import numpy as np

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, as_case, interleave
from bench.table import Table, spread

SIZES = (1, 4, 16, 64)
"""MiB an append."""
WIDTH = 4096
REPETITIONS = 25


def appended(writer: lamina.Writer, data: np.ndarray) -> Case:
    """The append alone is timed; what it staged is durable before the next case."""
    step = iter(range(10**9))

    def seconds() -> float:
        start = perf_counter()
        writer.append({f"mlp.output.{len(data)}": data}, step=next(step))
        took = perf_counter() - start
        writer.flush()
        return took

    return as_case(seconds)


def copied(data: np.ndarray) -> Case:
    out = data.copy()

    def seconds() -> float:
        start = perf_counter()
        np.copyto(out, data)
        return perf_counter() - start

    return as_case(seconds)


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    sizes, repetitions = ((1,), 1) if quick else (SIZES, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    run = lamina.Run.create(paths.SCRATCH / "run")
    cases: dict[str, Case] = {}
    generator = np.random.default_rng(0)
    with run.writer(durable_seconds=None) as writer:
        for size in sizes:
            data = generator.standard_normal(((size << 20) // (2 * WIDTH), WIDTH), np.float32).astype(np.float16)
            cases[f"{size} memcpy"], cases[f"{size} append"] = copied(data), appended(writer, data)
            for _ in range(3):  # the pool of staging buffers is there
                cases[f"{size} append"]()
            found = run.refresh().rows(f"mlp.output.{len(data)}").gather(range(len(data)))
            Within(0).check("append", {"rows": found.numpy()}, {"rows": data})
        seconds = {name: phases["time"] for name, phases in interleave(cases, repetitions, "blocking").items()}
    shutil.rmtree(paths.SCRATCH)
    rows = []
    for size in sizes:
        memcpy, append = spread(seconds[f"{size} memcpy"]), spread(seconds[f"{size} append"])
        rows.append(
            {
                "MiB": size,
                "memcpy, ms": 1e3 * memcpy.median,
                "append, ms": 1e3 * append.median,
                "quartiles, ms": f"{1e3 * append.lower:.3g} to {1e3 * append.upper:.3g}",
                "append / memcpy": f"{append.median / memcpy.median:.2f}",
            }
        )
    Table(
        question="How long does an append hold its caller?",
        columns=["MiB", "memcpy, ms", "append, ms", "quartiles, ms", "append / memcpy"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions; float16 rows of {WIDTH}, contiguous, warm staging buffers",
            "what was appended is flushed before the next case; the flush is not timed",
            "memcpy: the same bytes into a buffer that is there",
        ],
        packages=["lamina", "numpy"],
        samples={"": seconds},
    ).publish("blocking", quick=quick)


if __name__ == "__main__":
    main()
