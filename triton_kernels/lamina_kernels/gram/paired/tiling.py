"""The sizes of tiles, by GPU and precision.

Chosen from compiled code alone, by `make test-aot` (instructions a score, registers, spills): no GPU was at hand.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_kernels.tiles.target import kind


class Tiling(NamedTuple):
    """How the work of a program is cut.

    Attributes:
        rows: Rows of a tile of scores.
        columns: Its columns.
        chunk: Columns of x that are multiplied at a time.
        whole: The widest x of which a tile of rows is loaded once, for all columns.
        warps: Warps of a program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    chunk: int
    whole: int
    warps: int
    stages: int


# Kinds of GPU: Hopper, Blackwell of data centers, other NVIDIA (which may have 99 KB of shared memory only), AMD.
# Kinds of products: half precision, and those of float32.
_TILINGS = {
    ("hopper", "half"): Tiling(128, 128, 64, 128, 8, 2),
    ("hopper", "bf16x6"): Tiling(128, 64, 32, 64, 8, 2),
    ("hopper", "tf32"): Tiling(128, 64, 32, 64, 8, 2),
    ("hopper", "ieee"): Tiling(64, 64, 16, 0, 8, 2),
    ("blackwell", "half"): Tiling(128, 64, 64, 128, 8, 3),
    # With rows that are loaded once, bf16x6 takes more tensor memory than there is.
    ("blackwell", "bf16x6"): Tiling(128, 64, 32, 0, 8, 2),
    ("blackwell", "tf32"): Tiling(128, 64, 32, 64, 8, 2),
    ("blackwell", "ieee"): Tiling(64, 64, 16, 0, 8, 2),
    ("nvidia", "half"): Tiling(128, 64, 64, 128, 8, 2),
    ("nvidia", "bf16x6"): Tiling(128, 64, 16, 0, 8, 3),
    ("nvidia", "tf32"): Tiling(128, 64, 32, 64, 8, 2),
    ("nvidia", "ieee"): Tiling(64, 64, 16, 0, 8, 2),
    ("amd", "half"): Tiling(128, 64, 64, 64, 4, 2),
    ("amd", "bf16x6"): Tiling(64, 64, 32, 0, 4, 2),
    ("amd", "tf32"): Tiling(128, 64, 32, 64, 8, 2),
    ("amd", "ieee"): Tiling(128, 64, 32, 64, 8, 2),
}


def tiling(target: str, products: str, group: int) -> Tiling:
    """Return the tiles for a target.

    Args:
        target: "cuda:90", "hip:gfx942" and the like, or "interpreter".
        products: "half", or how float32 is multiplied.
        group: Rows of a group on average. Tiles do not cross groups, so that small groups get narrow ones.
    """
    chosen = _TILINGS[kind(target), products]
    return chosen if group > 32 else chosen._replace(columns=32)
