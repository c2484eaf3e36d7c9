"""CKA by peers. Runs in their environment: torch, NumPy and the peers, no Lamina."""

from __future__ import annotations

from collections.abc import Callable

import ckatorch as ckatorch_package  # pyright: ignore[reportMissingImports]
import numpy as np
import torch

# A type checker takes it for bench/cka.py.
from cka import cka_from_features  # pyright: ignore[reportAttributeAccessIssue, reportMissingImports]

Ready = Callable[[], dict[str, torch.Tensor]]


def ckatorch(x: np.ndarray, y: np.ndarray, *, device: str) -> Ready:
    """`ckatorch.cka_base`, which computes in float64 whatever it is given."""
    a, b = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
    return lambda: {"cka": ckatorch_package.cka_base(a, b, kernel="linear", unbiased=True)}


def from_features(x: np.ndarray, y: np.ndarray, *, device: str) -> Ready:
    """`cka.cka_from_features` of pytorch-cka, which computes in the dtype that it is given: in float64.

    In float32 its sums over n x n products are off by more than the tolerance (2e-4 of the value at n = 4000).
    """
    a, b = (torch.from_numpy(rows).to(device, torch.float64) for rows in (x, y))
    return lambda: {"cka": cka_from_features(a, b)[0, 0]}
