"""How soon is a run of 100,000 durable points open, and its first question answered?"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

import lamina
from bench import caches, paths
from bench.agreement import Within
from bench.command import is_quick
from bench.harness import Case, interleave
from bench.table import Table, spread

POINTS, WRITERS = 25_000, 4
"""Points of each writer."""
ROWS, WIDTH = 64, 8
"""Rows of a point, and numbers of a row, as `durable_points` writes them."""
REPETITIONS = 9
SITE = "blocks.0.output"

Question = Callable[[lamina.Run], object]

QUESTIONS: dict[str, Question] = {
    "sites()": lambda run: run.sites(),
    "steps()": lambda run: run.steps(),
    "rows(site, step=7).gather": lambda run: run.rows(SITE, step=7).gather(slice(None)),
}


def make(path: Path) -> None:
    """Make the run as 4 writers at work do, with the store's own writers on a file system that never syncs."""
    command = ["cargo", "run", "--quiet", "--release", "--locked", "-p", "lamina-store", "--example", "durable_points"]
    subprocess.run([*command, "--", str(path), str(WRITERS), str(POINTS)], cwd=paths.ROOT, check=True)


def make_small(path: Path, points: int) -> None:
    """Make a run of the same content here, with few points."""
    run = lamina.Run.create(path)
    values = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
    writers = [run.writer(rank=rank) for rank in range(WRITERS)]
    for step in range(points):
        for writer in writers:
            writer.append({SITE: values}, step=step, example=np.arange(ROWS), source="train").wait()
    for writer in writers:
        writer.close()


def check(path: Path, points: int) -> None:
    """Look whether the run holds what was written."""
    run = lamina.open(path, strict=True)
    assert run.sites()["rows"].to_list() == [WRITERS * points * ROWS]
    assert run.steps() == list(range(points))
    found = run.rows(SITE, step=points - 1).gather(slice(None)).numpy()
    every = np.tile(np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH), (WRITERS, 1))
    Within(0).check("the last step", {"rows": found}, {"rows": every})


def opened(path: Path, files: Iterable[Path], question: Question | None, *, cold: bool) -> Case:
    """Opens the run; with a question, times its answer alone."""

    def case() -> dict[str, float]:
        if cold and (reason := caches.drop(files)):
            raise RuntimeError(reason)
        start = perf_counter()
        run = lamina.open(path)
        phases = {"time": perf_counter() - start}
        if question is not None:
            start = perf_counter()
            question(run)
            phases = {"time": perf_counter() - start}
        return phases

    return case


def main(argv: Sequence[str] | None = None) -> None:
    quick = is_quick(__doc__, argv)
    points, repetitions = (8, 1) if quick else (POINTS, REPETITIONS)
    shutil.rmtree(paths.SCRATCH, ignore_errors=True)
    paths.SCRATCH.mkdir(parents=True)
    path = paths.SCRATCH / "run"
    if quick:
        make_small(path, points)
    else:
        make(path)
    check(path, points)
    files = [file for file in path.rglob("*") if file.is_file()]
    beside = [file for file in files if file.parent.name != "segments"]
    size = sum(file.stat().st_size for file in beside)
    reason = caches.drop(files)
    cases = {"open, warm": opened(path, files, None, cold=False)}
    if reason is None:
        cases["open, cold"] = opened(path, files, None, cold=True)
    for name, question in QUESTIONS.items():
        cases[f"{name}, first, warm"] = opened(path, files, question, cold=False)
    seconds = interleave(cases, repetitions, "opening")
    shutil.rmtree(paths.SCRATCH)
    rows = []
    for name, phases in seconds.items():
        took = spread(phases["time"])
        quartiles = f"{1e3 * took.lower:.3g} to {1e3 * took.upper:.3g}"
        rows.append({"work": name, "median, ms": 1e3 * took.median, "quartiles, ms": quartiles})
    Table(
        question=f"How soon is a run of {WRITERS * points:,} durable points by {WRITERS} writers open?",
        columns=["work", "median, ms", "quartiles, ms"],
        rows=rows,
        notes=[
            f"{repetitions} interleaved repetitions; each opens the run anew; a question is timed alone, as its first",
            f"a point is {ROWS} rows of {WIDTH} float32 with step, example and source; what came back was right before",
            f"{len(beside)} files beyond the {len(files) - len(beside)} segments, {size / 1e6:.3g} MB",
            "cold: all files dropped from the page cache, as mincore says"
            if reason is None
            else f"cold was left out: {reason}",
        ],
        packages=["lamina", "polars"],
        samples={"": {name: phases["time"] for name, phases in seconds.items()}},
    ).publish("open_run", quick=quick)


if __name__ == "__main__":
    main()
