"""The nearest rows by FAISS's flat index, which compares all. Runs in the peers' environment: no Lamina."""

from __future__ import annotations

from collections.abc import Callable

import faiss  # pyright: ignore[reportMissingImports]
import numpy as np


def nearest(x: np.ndarray, *, device: str, k: int, first: int) -> Callable[[], dict[str, np.ndarray]]:
    """`IndexFlatL2`: squared distances in float32, of which each row's own is the smallest."""
    assert device == "cpu"
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)

    def run() -> dict[str, np.ndarray]:
        distances, _ = index.search(x, k + 1)
        return {"distances": distances[:first, 1:]}

    return run
