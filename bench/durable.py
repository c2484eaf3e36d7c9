"""What do 1,000 appends of 64 rows cost that are durable one by one, from one thread and from eight?"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence
from time import perf_counter

import numpy as np

import lamina
from bench import paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread
from lamina import _core

APPENDS = 1000
DATA = np.random.default_rng(0).standard_normal((64, 768), np.float32).astype(np.float16)
REPETITIONS = 7
LIMIT = "write() + fdatasync"


def raw(appends: int) -> Case:
    def case() -> dict[str, float]:
        file = os.open(paths.SCRATCH / "raw", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        start = perf_counter()
        for _ in range(appends):
            os.write(file, DATA.data.cast("B"))
            os.fdatasync(file)
        took = perf_counter() - start
        os.close(file)
        return {"time": took, "syncs": float(appends)}

    return case


def lamina_from(threads: int, appends: int) -> Case:
    """All threads of the case together make the appends, each with a writer of its own."""

    def case() -> dict[str, float]:
        shutil.rmtree(paths.SCRATCH / "run", ignore_errors=True)
        run = lamina.Run.create(paths.SCRATCH / "run")
        writers = [run.writer() for _ in range(threads)]
        writers[0].append({"mlp.output": DATA}, step=0).wait()  # declares

        def work(writer: lamina.Writer) -> None:
            for step in range(appends // threads):
                writer.append({"mlp.output": DATA}, step=step).wait()

        workers = [threading.Thread(target=work, args=(writer,)) for writer in writers]
        before, start = _core.syncs(), perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        phases = {"time": perf_counter() - start, "syncs": float(_core.syncs() - before)}
        for writer in writers:
            writer.close()
        return phases

    return case


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    appends, repetitions = (16, 1) if quick else (APPENDS, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    cases = {
        LIMIT: raw(appends),
        "lamina, 1 thread": lamina_from(1, appends),
        "lamina, 8 threads": lamina_from(8, appends),
    }
    for name, case in cases.items():
        case()
        if name != LIMIT:
            found = lamina.open(paths.SCRATCH / "run").rows("mlp.output").gather(range(64 * (appends + 1))).numpy()
            Within(0).check(name, {"rows": found}, {"rows": np.tile(DATA, (appends + 1, 1))})
    seconds = interleave(cases, repetitions, "durable appends")
    shutil.rmtree(paths.SCRATCH)
    limit = spread(seconds[LIMIT]["time"]).median
    rows = []
    for name, phases in seconds.items():
        took = spread(phases["time"])
        rows.append(
            {
                "writer": name,
                "an append, ms": 1e3 * took.median / appends,
                "quartiles, ms": f"{1e3 * took.lower / appends:.3g} to {1e3 * took.upper / appends:.3g}",
                "syncs an append": f"{spread(phases['syncs']).median / appends:.2f}",
                "of the limit's time": f"{took.median / limit:.2f}",
            }
        )
    Table(
        question="What do 1,000 appends of 64 rows cost that are durable one by one?",
        columns=["writer", "an append, ms", "quartiles, ms", "syncs an append", "of the limit's time"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions of {appends} appends of 96 KiB (d = 768, float16) in all",
            f"the limit is {LIMIT} of the same bytes, append by append, from one thread",
            "each thread has its own `run.writer()` and waits for each ticket; the store counts its syncs",
        ],
        packages=["lamina", "numpy"],
        samples={"": {name: phases["time"] for name, phases in seconds.items()}},
    ).publish("durable", quick=quick)


if __name__ == "__main__":
    main()
