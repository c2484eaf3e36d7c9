"""A fresh run."""

from __future__ import annotations

from pathlib import Path

import pytest

import lamina


@pytest.fixture
def run(tmp_path: Path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run", config={"lr": 1e-3})
