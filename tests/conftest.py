"""Which tests run where, and what every test can rely on."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from functools import cache

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # several processes share the cores, before torch counts them
    os.environ["OMP_NUM_THREADS"] = "1"

# one server serves a whole session: what it has imported, no process that a test starts imports again
multiprocessing.set_forkserver_preload(
    ["torch", "polars", "lamina", "lamina.similarity", "lamina_kernels.gram", "lamina_kernels.sparse"]
)


@cache
def _obstacle(marker: str) -> str | None:
    """Return why tests with this marker cannot run on this machine, or None."""
    if marker == "root":
        return None if os.geteuid() == 0 else "needs the rights of root"
    if marker == "chromium":
        found = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
        return None if found else "needs headless Chromium on the PATH"
    import torch

    return None if torch.cuda.is_available() else "needs a GPU"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run and what nobody asked for."""
    for item in items:
        for marker in ("root", "chromium", "gpu"):
            if item.get_closest_marker(marker) and (obstacle := _obstacle(marker)):
                item.add_marker(pytest.mark.skip(reason=obstacle))
        for marker in ("slow", "aot", "power_cut"):
            if item.get_closest_marker(marker) and marker not in config.option.markexpr:
                target = marker.replace("_", "-")
                item.add_marker(pytest.mark.skip(reason=f"{marker}: `make test-{target}` runs it"))
