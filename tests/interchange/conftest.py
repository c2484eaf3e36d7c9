"""Runs to export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamina
from tests.interchange.planted import DTYPES, stored


@pytest.fixture
def every(tmp_path: Path) -> lamina.Run:
    """A site of every dtype, of every kind of item, and columns of every type with and without nulls."""
    run = lamina.Run.create(tmp_path / "every", config={"lr": 1e-3})
    with run.writer() as writer:
        for step in (0, 10):
            sites = {f"{dtype}.output": stored(dtype, (50, 3), step) for dtype in DTYPES}
            sites |= {"scalar": stored("f32", (50,), step), "image": stored("bf16", (50, 2, 3, 2), step)}
            writer.append(
                sites,
                step=step,
                example=np.arange(50) // 2,
                source="train" if step else "probe",
                weight=np.linspace(-0.0, 1, 50),
                text=[None if k % 7 == 3 else f"ä{k}\n" * (k % 3) for k in range(50)],
                count=[None if k % 5 == 2 else k - 2**40 for k in range(50)],
                ok=np.arange(50) % 3 == 0,
                maybe=[None, True, False, True, True] * 10,
            )
    return run.refresh()


@pytest.fixture
def uneven(tmp_path: Path) -> lamina.Run:
    """Sites with different rows: tokens and sequences."""
    run = lamina.Run.create(tmp_path / "uneven")
    with run.writer() as writer:
        tokens, sequences = stored("f32", (6, 4, 2)), stored("f16", (6, 5))
        writer.append({"tokens": tokens, "sequences": sequences}, step=3, example=list("abcdef"))
    return run.refresh()
