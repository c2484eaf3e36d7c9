"""The planted run, written once, and what both readers say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import lamina
from tests.store import reader
from tests.store.planted import Planted, plant


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store") / "run"


@pytest.fixture(scope="session")
def planted(path: Path) -> Planted:
    return plant(path)


@pytest.fixture(scope="session")
def read(path: Path, planted: Planted) -> reader.Recorded:
    return reader.read(path)


@pytest.fixture(scope="session")
def run(path: Path, planted: Planted) -> lamina.Run:
    return lamina.open(path, strict=True)
