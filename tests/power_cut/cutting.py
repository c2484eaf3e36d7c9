"""Cuts under a writer, and what is lost by them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

import lamina
from lamina.errors import LaminaError
from tests.power_cut.image import Image
from tests.power_cut.writer import STEPS, rows_of, weights_of

ROOT = Path(__file__).parents[2]
NO_SYNC = """
int fsync(int file) { return 0; }
int fdatasync(int file) { return 0; }
int sync_file_range(int file, long from, long length, unsigned flags) { return 0; }
"""


@dataclass
class Account:
    """What was acknowledged over some cuts, what of it was lost, and by how many cuts."""

    cuts: int = 0
    acknowledged: int = 0
    harmed: int = 0
    lost: list[str] = field(default_factory=list)


def library_without_syncs(folder: Path) -> Path:
    """A library to preload whose syncs do nothing: the control."""
    source, library = folder / "no_sync.c", folder / "no_sync.so"
    source.write_text(NO_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def cut_repeatedly(
    image: Image, cuts: int, *, preload: Path | None = None, fresh: bool = False, seed: int = 0
) -> Account:
    """Cuts the power under one writer after another in one run (`fresh`: a run for each), and compares after each."""
    account, chance = Account(), random.Random(0)
    known: dict[Path, list[int]] = {}
    for number in range(cuts):
        path = image.path / (f"run-{number}" if fresh else "run")
        steps = _cut_once(image, path, number, chance, preload)
        account.cuts += 1
        account.acknowledged += len(steps)
        known.setdefault(path, []).extend(steps)
        # all that earlier writers were told must still be there; reading everything each time would take too long
        last = number == cuts - 1
        found = lost(path, known[path] if last else known[path][-60:])
        account.lost += found
        account.harmed += bool(found)
    return account


def _cut_once(image: Image, path: Path, number: int, chance: random.Random, preload: Path | None) -> list[int]:
    """One writer and the end of its power: the steps that it was told are durable.

    What it was told while the ioctl worked does not count: a machine without power tells nothing, but a plain write
    and fdatasync that the ioctl overtakes may report success and be lost.
    """
    before: list[int] = []
    environment = os.environ | ({"LD_PRELOAD": str(preload)} if preload else {})
    command = [sys.executable, "-m", "tests.power_cut.writer", str(path), str(number)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    with process.stdout as lines:
        # the cut comes at any moment of a step, from the first on; on a slow machine, too, behind some
        told = [lines.readline() for _ in range(1 + int(chance.expovariate(1 / 5)))]
        if chance.random() < 0.5:
            # an unrelated program's sync: the journal is written, as it is every few seconds
            sync_something(image.path / "unrelated")
        timer = threading.Timer(chance.expovariate(1 / 0.1), lambda: (before.append(len(told)), image.cut()))
        timer.start()
        for line in lines:
            told.append(line)  # noqa: PERF402 (the timer counts them)
    process.wait()
    timer.join()
    image.restore()
    assert told[0], "the writer did not begin"
    return [int(line) for line in told[: before[0]] if line.strip().isdigit()]


def sync_something(path: Path) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(file, b"x")
    os.fsync(file)
    os.close(file)


def lost(path: Path, steps: list[int]) -> list[str]:
    """What is not there, or not what was written, of acknowledged steps."""
    try:
        return list(_lost(path, steps))
    except (LaminaError, pl.exceptions.ComputeError) as error:
        return [f"{path.name}: {error}"]


def _lost(path: Path, steps: list[int]) -> Iterator[str]:
    run = lamina.open(path)
    yield from (str(p) for p in run.problems if "never acknowledged" not in p.message and steps)
    if not steps:
        return
    rows = run.activations(["x", "norm"]).filter(pl.col("step") >= min(steps)).collect()
    by_step = {key[0]: frame for key, frame in rows.group_by("step", maintain_order=True)}
    losses = dict(run.metrics().select("step", "value").collect().iter_rows())
    for step in steps:
        x, frame = rows_of(step), by_step.get(step)
        if frame is None:
            yield f"step {step} of writer {step // STEPS}: no rows"
        elif not np.array_equal(frame["x"].to_numpy(), x) or frame["text"][-1] != f"row {len(x) - 1}":
            yield f"step {step}: other rows"
        if losses.get(step) != step + 0.5:
            yield f"step {step}: its metric"
        if step % 5 == 0:
            loaded = run.load(step, part="model")
            if any(not np.array_equal(loaded[name], value) for name, value in weights_of(step).items()):
                yield f"step {step}: its checkpoint"
