"""The planted run, written once, and what both readers say of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import lamina
from tests.store import reader, small
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


@pytest.fixture(scope="session")
def whole_small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("damage") / "run"
    small.make(path)
    return path


@pytest.fixture(scope="session")
def expected(whole_small_run: Path) -> small.Examined:
    found = small.examine(whole_small_run)
    assert not found.noticed
    return found


@pytest.fixture
def small_run(whole_small_run: Path, tmp_path: Path) -> Path:
    """A copy of the whole run, to be damaged."""
    return Path(shutil.copytree(whole_small_run, tmp_path / "run"))
