"""A small run, and a measure that counts how often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import lamina

SITES = ["embed.output", "blocks.0.output", "blocks.1.output"]
STEPS = [0, 10]
EXAMPLES = 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices are compared faster by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
