"""What the tests of other people's loops share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch

import lamina


@pytest.fixture
def run(tmp_path) -> lamina.Run:
    return lamina.Run.create(tmp_path / "run")


@pytest.fixture(autouse=True)
def _offline_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bit-equality holds for one number of threads; nothing is asked of the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    if "accelerate" in sys.modules:
        # What one test asked of it, such as to compile, stays in the environment and in its one state.
        sys.modules["accelerate"].state.AcceleratorState._reset_state(reset_partial_state=True)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]
