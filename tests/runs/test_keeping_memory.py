"""What memory keeping a run takes, as the operating system tells it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import lamina
from tests.meter import peak_bytes

SAID = 200 << 20
"""What the docstring of `compact` says."""


def added(path: Path, call: str) -> int:
    """Bytes that a call needs beside what an open run does."""
    opened = f"import lamina\nrun = lamina.open({str(path)!r})\n"
    return peak_bytes(opened + call) - peak_bytes(opened)


def test_compaction_of_checkpoints_takes_what_it_says(tmp_path: Path) -> None:
    run, generator = lamina.Run.create(tmp_path / "run"), np.random.default_rng(0)
    state = {f"w{at}": generator.standard_normal(1 << 20, dtype=np.float32) for at in range(4)}
    with run.writer() as writer:
        for step in range(24):
            writer.save({"model": state}, step=step)
            state = {name: weight * np.float32(1.001) for name, weight in state.items()}
    # 400 MB that are coded, several batches of them
    assert added(run.path, "assert run.compact(progress=False).chunks == 24 * 16") < SAID
    assert lamina.open(run.path).verify(progress=False).ok


def test_compaction_of_rows_takes_what_it_says(tmp_path: Path) -> None:
    run, rows = lamina.Run.create(tmp_path / "run"), np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    with run.writer() as writer:
        for step in range(80):
            writer.append({"x": rows + np.float32(step)}, step=step).wait()
    for cold in ("", "cold='x', "):
        done = f"done = run.compact({cold}progress=False); assert done.groups_after < done.groups_before, done"
        assert added(run.path, done) < SAID, cold
        with run.refresh().writer() as writer:
            for step in range(80, 160):
                writer.append({"x": rows + np.float32(step)}, step=step).wait()
