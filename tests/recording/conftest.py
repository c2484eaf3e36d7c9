"""What the tests of recording share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.recording.fakes import fake_run


@pytest.fixture
def run() -> Any:
    return fake_run()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Bit-equality holds for one number of threads; small models are fastest with one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
