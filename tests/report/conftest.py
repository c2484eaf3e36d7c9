from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamina
from lamina.demo.digits import png

STEPS = (0, 1, 2, 8, 32)


def write_run(path: Path, *, seed: int) -> lamina.Run:
    """A run with all that a report can show; its hidden layer grows with the step, its weights move by it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(24) % 3
    centers = rng.normal(size=(3, 5))
    run = lamina.Run.create(
        path, config={"description": "Three groups drift apart.", "units": {"loss": "nats"}, "seed": seed, "lr": 0.1}
    )
    with run.writer() as writer:
        image = png(np.arange(16, dtype=np.uint8).reshape(4, 4))
        writer.examples({"example": np.arange(24), "label": labels, "image": [image] * 24})
        for step in STEPS:
            hidden = ((step + 1) * centers[labels] + 0.1 * rng.normal(size=(24, 5))).astype(np.float32)
            sites = {"blocks.0.output": hidden, "blocks.0.output.grad": -hidden, "output": hidden[:, :3]}
            writer.append(sites, step=step, example=np.arange(24), source="validation")
            writer.append({"loss": 2.0 / (step + 1) + 0.1 * labels}, step=step, example=np.arange(24), source="train")
            writer.log({"train/loss": 2.0 / (step + 1), "validation/loss": 2.1 / (step + 1)}, step=step)
            writer.save({"model": {"layer": {"weight": np.eye(4) * (1 + step), "bias": np.ones(4)}}}, step=step)
        writer.log({"recording/percent": 4.0 + seed, "recording/seconds_with": 1.0}, step=STEPS[-1])
    return lamina.open(path)


@pytest.fixture
def runs(tmp_path: Path) -> list[lamina.Run]:
    return [write_run(tmp_path / "runs" / f"seed-{seed}", seed=seed) for seed in range(2)]
