"""Codebooks by vector-quantize-pytorch. Runs in the peers' environment: no Lamina."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from vector_quantize_pytorch import VectorQuantize  # pyright: ignore[reportMissingImports]

Ready = Callable[[], dict[str, torch.Tensor]]


def nearest(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    """A layer in evaluation: the nearest code of each row."""
    rows, layer = _ready(x, codes, device)
    layer.eval()

    def run() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            quantized, _, _ = layer(rows)
        return {"distances": (quantized - rows)[0, :first].square().sum(1)}

    return run


def step(x: np.ndarray, codes: np.ndarray, *, device: str, first: int) -> Ready:
    """A layer in training: straight through, moving averages, and the gradient by the rows."""
    rows, layer = _ready(x, codes, device)
    rows.requires_grad_()

    def run() -> dict[str, torch.Tensor]:
        quantized, _, _ = layer(rows)
        torch.autograd.grad(quantized.square().sum(), rows)
        return {"distances": (quantized - rows).detach()[0, :first].square().sum(1)}

    return run


def _ready(x: np.ndarray, codes: np.ndarray, device: str) -> tuple[torch.Tensor, VectorQuantize]:
    layer = VectorQuantize(dim=codes.shape[1], codebook_size=len(codes), decay=0.99, commitment_weight=0.0).to(device)
    layer.codebook = torch.from_numpy(codes).to(device)
    return torch.from_numpy(x).to(device)[None], layer
