"""Small models that the recorder never saw."""

from __future__ import annotations

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True))
        self.drop = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.mlp(x))


class Net(nn.Module):
    """Blocks with dropout, a batch norm, and a head: everything that has a mode or draws random numbers."""

    def __init__(self, width: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Returns(nn.Module):
    """Returns whatever it is given."""

    def forward(self, *args: object) -> object:
        return args[0] if len(args) == 1 else args


def linear(width: int = 2) -> nn.Linear:
    """Return a layer that multiplies by two: its rows tell where they come from."""
    layer = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        layer.weight.copy_(2 * torch.eye(width))
    return layer
