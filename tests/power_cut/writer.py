"""Records without an end and prints what was acknowledged.

`python -m tests.power_cut.writer RUN NUMBER` prints `created` if it made the run, then each step whose rows, metric and
checkpoint are durable. What a step holds follows from NUMBER and the step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import lamina

STEPS = 1000
"""Step s of writer n is recorded as step n * STEPS + s."""


def rows_of(step: int) -> np.ndarray:
    chance = np.random.default_rng(step)
    # some steps fill more than a page or a sector, few more than a megabyte
    rows = int(chance.choice([1, 7, 64, 640], p=[0.4, 0.3, 0.28, 0.02]))
    return chance.standard_normal((rows, 48), np.float32)


def weights_of(step: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(-step % 2**32)
    return {"frozen": np.arange(5000, dtype=np.int32), "w": chance.standard_normal(int(chance.integers(1, 9000)))}


def main(path: Path, number: int) -> None:
    if path.exists():
        run = lamina.open(path)
    else:
        run = lamina.Run.create(path)
        print("created", flush=True)
    writer = run.writer()
    for step in range(number * STEPS, (number + 1) * STEPS):
        x = rows_of(step)
        writer.append({"x": x, "norm": np.linalg.norm(x, axis=1)}, step=step, text=[f"row {i}" for i in range(len(x))])
        writer.log({"loss": step + 0.5}, step=step)
        if step % 5 == 0:
            writer.save({"model": weights_of(step)}, step=step)
        writer.flush()
        print(step, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
