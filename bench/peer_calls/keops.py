"""A product with a kernel's matrix by KeOps. Runs in the peers' environment: torch, NumPy and the peers, no Lamina."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pykeops.torch import LazyTensor  # pyright: ignore[reportMissingImports]


def product(x: np.ndarray, v: np.ndarray, *, device: str, checked: int) -> Callable[[], dict[str, torch.Tensor]]:
    """The RBF kernel of bandwidth sqrt(d) as a symbolic matrix, times the values; compiled before it returns.

    Of the result, about `checked` rows are returned.
    """
    rows, values = torch.from_numpy(x).to(device), torch.from_numpy(v).to(device)
    scale = 0.5 / x.shape[1]

    def times(some: torch.Tensor) -> torch.Tensor:
        distances = LazyTensor(some[:, None, :]).sqdist(LazyTensor(rows[None, :, :]))
        return (-scale * distances).exp() @ values

    times(rows[:10])
    return lambda: {"out": times(rows)[:: max(1, len(x) // checked)]}
