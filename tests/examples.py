"""A plugin for `make docs`: every example of the pages runs in an empty folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.threads import one_thread  # noqa: F401  # of small examples, many at a time


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # nnsight puts one of its own there when it is imported, which parses the source of whoever calls it.
    monkeypatch.setattr("torch.Tensor.backward", torch.Tensor.backward)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Lightning say what it says of every small example, and of the torch that it is older than."""
    for item in items:
        if item.path.name == "loops.md":
            item.add_marker(pytest.mark.filterwarnings("ignore:.*does not have many workers"))
            item.add_marker(pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"))
