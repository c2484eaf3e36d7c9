from __future__ import annotations

from tests.threads import one_thread  # noqa: F401 - for every test of the folder
