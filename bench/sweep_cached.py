"""How long does a cell of a sweep take that was computed before?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

import lamina
from bench import paths
from bench.command import is_quick
from bench.harness import TIME, Case, as_case, interleave
from bench.table import Table, spread
from lamina.measures import Estimate, Replicates

SITES, STEPS, ROWS, WIDTH = 24, 20, 20_000, 4
REPETITIONS = 9


def make(path: Path, sites: int, steps: int, rows: int) -> lamina.Run:
    """Make a run whose vectors are small: no cached cell looks at them."""
    run = lamina.Run.create(path)
    rng = np.random.default_rng(0)
    with run.writer() as writer:
        for step in range(steps):
            vectors = rng.standard_normal((sites, rows, WIDTH), dtype=np.float32).astype(np.float16)
            named = {f"blocks.{site}.output": vectors[site] for site in range(sites)}
            writer.append(named, step=step, example=np.arange(rows), source="validation")
    return run.refresh()


def mean(x: Any) -> Estimate:
    """What a measure costs is not asked: one that looks at a row, with the replicates that a measure has."""
    return _estimate("mean", x)


def product(x: Any, y: Any) -> Estimate:
    """The same, of two."""
    return _estimate("product", x)


def _estimate(name: str, x: Any) -> Estimate:
    values = np.random.default_rng(0).standard_normal(32) + float(x.gather([0]).sum())
    left = Replicates.of(range(32), [len(x) // 32] * 32, values)
    return Estimate(name, values.mean(), left.stderr(values.mean()), n=len(x), n_groups=len(x), replicates=left)


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    sites, steps, rows, repetitions = (3, 2, 100, 1) if quick else (SITES, STEPS, ROWS, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    run = make(paths.SCRATCH / "run", sites, steps, rows)
    half = pl.col("example") < rows // 2
    questions: dict[str, tuple[Any, dict[str, Any]]] = {
        "sites x steps, of one": (mean, {}),
        "the same, with where=": (mean, {"where": half}),
        "all same-step pairs": (product, {}),
    }
    cases: dict[str, Case] = {}
    cells: dict[str, int] = {}
    for name, (measure, given) in questions.items():
        first = lamina.sweep(measure, run, progress=False, **given)
        assert lamina.sweep(measure, lamina.open(run.path), progress=False, **given).equals(first)
        cells[name] = first.height

        def again(measure: Any = measure, given: dict[str, Any] = given) -> dict[str, float]:
            opened = lamina.open(run.path)
            start = perf_counter()
            lamina.sweep(measure, opened, progress=False, **given)
            return {TIME: perf_counter() - start}

        cases[name] = again
    files = list(run.path.glob("cache/product-*/*"))

    def parsed() -> float:
        start = perf_counter()
        for file in files:
            for line in file.read_bytes().splitlines():
                json.loads(line[42:])
        return perf_counter() - start

    limit = "the pairs' lines, read and parsed as JSON"
    cells[limit] = cells["all same-step pairs"]
    seconds = interleave({limit: as_case(parsed), **cases}, repetitions, "cached")
    size = sum(file.stat().st_size for file in files)
    shutil.rmtree(paths.SCRATCH)
    table = []
    for name, phases in seconds.items():
        took = spread(phases[TIME])
        table.append(
            {
                "work": name,
                "cells": cells[name],
                "us a cell": 1e6 * took.median / cells[name],
                "median, ms": 1e3 * took.median,
                "quartiles, ms": f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}",
            }
        )
    Table(
        question="How long does a cell of a sweep take that was computed before?",
        columns=["work", "cells", "us a cell", "median, ms", "quartiles, ms"],
        rows=table,
        notes=[
            f"{repetitions} interleaved repetitions; {sites} sites x {steps} steps, {rows:,} rows; the run opened anew",
            "timed is the whole sweep: its rows, the hash of its code, the frame, which was that of the first sweep",
            f"estimates with 32 replicates; the pairs' lines are {size / 1e6:.3g} MB",
            "the goal is under 1,000 us a cell",
        ],
        packages=["lamina", "polars"],
        samples={"": {name: phases[TIME] for name, phases in seconds.items()}},
    ).publish("sweep_cached", quick=quick)


if __name__ == "__main__":
    main()
