"""The network of the demo: two convolutions, a hidden layer and a head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = (32, 64)
"""Channels of the two convolutions."""
HIDDEN = 64
"""Units of the last hidden layer."""


class DigitNetwork(nn.Module):
    """From images of 8 x 8 pixels to 10 logits; its hidden layers are `blocks.0` to `blocks.2`.

    Args:
        seed: Of the initial weights; the global random state stays as it is.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = CHANNELS
            self.blocks = nn.Sequential(
                nn.Sequential(nn.Conv2d(1, first, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(first, second, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Flatten(), nn.Linear(4 * second, HIDDEN), nn.ReLU()),
            )
            self.head = nn.Linear(HIDDEN, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [batch, 64] to logits [batch, 10]."""
        return self.head(self.blocks(images.unflatten(1, (1, 8, 8))))
