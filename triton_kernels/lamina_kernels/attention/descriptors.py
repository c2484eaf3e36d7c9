"""Rows of attention as the copy engines of Hopper and Blackwell take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lamina_kernels.tiles import descriptors


def described(arguments: Mapping[str, Any], tiles: Mapping[str, tuple[int, int]], target: str) -> dict[str, Any]:
    """Return `tiles.descriptors.described` of rows [B, H, N, D], none of packed sequences.

    Those are read by addresses: behind the end of one the next begins, which no descriptor knows.

    Args:
        arguments: What `operands.arguments` returned.
        tiles: Rows and columns of the tiles that are loaded of each tensor, by its name.
        target: What the kernel is compiled for.
    """
    if arguments["cu_seqlens_q"] is not None:
        return {"DESCRIPTORS": False}
    return descriptors.described(arguments, tiles, target)
