"""The nearest rows of every row by the largest difference of a feature (the Chebyshev distance), exactly."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 2**14
"""Rows whose neighbors are looked for at a time."""


def nearest(z: np.ndarray, k: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances of the k nearest rows of other groups, and which rows they are.

    Args:
        z: float64 [n, d], finite.
        k: How many, at least 1.
        codes: int64 [n], each row's group; `arange(n)` hides the row itself alone.

    Returns:
        float64 [n, k], ascending, inf where there are fewer; int64 [n, k].
    """
    from scipy.spatial import KDTree

    tree = KDTree(z)
    distances, rows = np.full((len(z), k), np.inf), np.zeros((len(z), k), np.int64)
    # rows that are near each other one after another: they meet the same parts of the tree
    for start in range(0, len(z), BLOCK):
        left, wanted = tree.indices[start : start + BLOCK], k + 1
        while left.size:
            wanted = min(wanted, len(z))
            found, at = tree.query(z[left], wanted, p=np.inf, workers=torch.get_num_threads())
            hidden = codes[at] == codes[left][:, None]
            order = np.argsort(hidden, axis=1, kind="stable")[:, :k]
            some = order.shape[1]
            found[hidden] = np.inf
            distances[left, :some] = np.take_along_axis(found, order, 1)
            rows[left, :some] = np.take_along_axis(at, order, 1)
            missing = np.isinf(distances[left, -1])
            if wanted == len(z):
                break
            left, wanted = left[missing], 2 * wanted
    return distances, rows
