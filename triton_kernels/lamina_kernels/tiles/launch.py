"""A launch of a kernel, planned before it is run: tests compile what users launch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch


class Launch(NamedTuple):
    """One launch.

    Attributes:
        grid: The number of programs.
        arguments: The kernel's arguments by name.
        options: Warps and stages.
    """

    grid: tuple[int]
    arguments: dict[str, Any]
    options: dict[str, int]


def run(kernel: Any, launch: Launch, like: torch.Tensor) -> None:
    """Launch a kernel on the GPU that holds `like`; no programs are none."""
    if launch.grid[0] == 0:
        return
    keywords: dict[str, Any] = launch.arguments | launch.options
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        kernel[launch.grid](**keywords)
