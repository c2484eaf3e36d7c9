from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import lamina
from lamina.cli import main


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Call `lamina` as the shell would."""

    def call(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["lamina", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        return Done(int(left.value.code or 0), str(printed.out), str(printed.err))

    return call


def write_run(path: Path, *, offset: float = 0.0) -> Path:
    """A run with two sites, three steps, metrics (one of them NaN), checkpoints and labeled examples."""
    run = lamina.Run.create(path, config={"lr": 0.1, "optimizer": {"name": "sgd"}})
    with run.writer() as writer:
        writer.examples({"example": np.arange(4), "label": ["a", "b", "a", "b"]})
        for step in (0, 10, 20):
            rows = np.arange(12, dtype=np.float32).reshape(4, 3) + step
            loss = np.array([4, 3, 2, 1], dtype=np.float32) / (step + 1)
            writer.append({"mlp.output": rows, "loss": loss}, step=step, example=np.arange(4), source="validation")
            writer.log({"train/loss": 1 / (step + 1) + offset, "train/odd": float("nan")}, step=step)
            writer.save({"model": {"weight": np.full((2, 2), step, dtype=np.float32)}}, step=step)
    return path


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return write_run(tmp_path / "one")


@pytest.fixture
def several(tmp_path: Path) -> Path:
    for k in range(2):
        write_run(tmp_path / "runs" / f"seed-{k}", offset=k)
    return tmp_path / "runs"
