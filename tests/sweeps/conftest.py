"""A small run, and a measure that counts how often it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lamina
from tests.threads import one_thread  # noqa: F401 - for every test of the folder

SITES = ["embed.output", "blocks.0.output", "blocks.1.output"]
STEPS = [0, 10]
EXAMPLES = 40


def vectors(site: str, step: int, n: int = EXAMPLES, seed: int = 0) -> torch.Tensor:
    """What every site makes of the same examples, which moves with the step."""
    base = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))
    own = torch.randn(n, 4, generator=torch.Generator().manual_seed(100 * seed + 10 * SITES.index(site) + step + 1))
    return base + own


def make(path: Path, seed: int = 0, *, steps: list[int] = STEPS) -> lamina.Run:
    run = lamina.Run.create(path, config={"seed": seed})
    with run.writer() as writer:
        for step in steps:
            sites = {site: vectors(site, step, seed=seed) for site in SITES}
            writer.append(sites, step=step, example=range(EXAMPLES), source="validation")
        writer.examples({"example": range(EXAMPLES), "topic": [number % 8 for number in range(EXAMPLES)]})
    return run.refresh()


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return make(tmp_path / "seed-0")


@pytest.fixture
def wide(tmp_path: Path) -> lamina.Run:
    """Ten sites at two steps, of which CKA computes all pairs at once."""
    run = lamina.Run.create(tmp_path / "wide")
    with run.writer() as writer:
        for step in (0, 1):
            base = torch.randn(300, 16, generator=torch.Generator().manual_seed(step))
            noise = [torch.randn(300, 16, generator=torch.Generator().manual_seed(100 + k)) for k in range(10)]
            sites = {f"blocks.{k}.output": base + k * each for k, each in enumerate(noise)}
            writer.append(sites, step=step, example=range(300))
    return run.refresh()
