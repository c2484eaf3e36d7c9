"""What the tests of recording share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.recording.fakes import fake_run
from tests.threads import one_thread  # noqa: F401 - for every test of the folder


@pytest.fixture
def run() -> Any:
    return fake_run()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left, and beside it the run of one; made once, for starting them takes seconds."""
    from tests.recording.two_ranks import spawn

    folder = tmp_path_factory.mktemp("ranks")
    spawn(folder, "usual")
    return folder
