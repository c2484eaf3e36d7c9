"""The sizes of an encoder's tiles, by GPU and precision.

Chosen from compiled code alone, by `make test-aot` (instructions a pre-activation, registers, spills): no GPU was at
hand.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_kernels.tiles.target import kind


class Tiling(NamedTuple):
    """How the work of a program is cut.

    Attributes:
        rows: Rows of a tile of pre-activations.
        columns: Its units.
        warps: Warps of a program.
        stages: Chunks in flight.
        chunk: Columns of rows that a program multiplies at a time.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    chunk: int


_TILES = {
    # As wide as there are registers for: of 64 units, a tile reads all that shared memory gives.
    ("hopper", "half"): Tiling(128, 256, 8, 4, 64),
    ("hopper", "single"): Tiling(128, 128, 8, 2, 32),
    ("blackwell", "half"): Tiling(128, 256, 8, 4, 64),
    # For wider ones there is no tensor memory.
    ("blackwell", "single"): Tiling(128, 64, 8, 2, 32),
    ("nvidia", "half"): Tiling(128, 128, 8, 3, 64),
    ("nvidia", "single"): Tiling(128, 64, 8, 3, 16),
    ("amd", "half"): Tiling(128, 256, 8, 2, 32),
    ("amd", "single"): Tiling(128, 128, 4, 2, 16),
}

# Of rows that lie at any places, on NVIDIA: addresses and masks take registers.
_BY_ADDRESSES = {"half": Tiling(128, 128, 8, 3, 32), "single": Tiling(128, 64, 8, 2, 32)}


def tile(target: str, products: str, aligned: bool) -> Tiling:
    """Return the tiles of an encoder.

    Args:
        target: "cuda:90", "hip:gfx942" and the like, or "interpreter".
        products: "half", or how float32 is multiplied.
        aligned: Whether rows lie as copy engines take them.
    """
    gpu, numbers = kind(target), "half" if products == "half" else "single"
    if gpu != "amd" and not aligned:
        return _BY_ADDRESSES[numbers]
    return _TILES[gpu, numbers]
