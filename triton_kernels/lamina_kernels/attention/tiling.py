"""The sizes of tiles of attention, by GPU, width and precision.

Chosen from compiled code alone, by `make test-aot` (instructions a score, registers, spills): no GPU was at hand.
"""

from __future__ import annotations

from typing import NamedTuple

from lamina_kernels.tiles.target import kind


class Tiling(NamedTuple):
    """How the work of a program is cut.

    Attributes:
        rows: Queries of a tile.
        columns: Its keys.
        warps: Warps of a program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    warps: int
    stages: int


# Tiles of the forward pass in half precision, by the widest rows they are for and the highest tier. More statistics
# take more registers; where they would spill, tiles are narrower.
_HALF = {
    "hopper": (
        (64, 2, Tiling(128, 128, 8, 3)),
        (64, 3, Tiling(128, 64, 8, 2)),
        (128, 2, Tiling(128, 128, 8, 2)),
        (128, 3, Tiling(128, 64, 8, 2)),
        (256, 2, Tiling(128, 64, 8, 2)),
        (256, 3, Tiling(128, 32, 8, 2)),
    ),
    "blackwell": (
        (128, 0, Tiling(128, 128, 8, 2)),
        (128, 1, Tiling(128, 64, 8, 2)),
        (128, 3, Tiling(128, 32, 8, 2)),
        (256, 0, Tiling(128, 64, 8, 2)),
        (256, 3, Tiling(128, 32, 8, 2)),
    ),
    "nvidia": (
        (64, 2, Tiling(128, 64, 8, 2)),
        (128, 1, Tiling(128, 64, 8, 2)),
        (128, 3, Tiling(128, 32, 8, 2)),
        (256, 3, Tiling(64, 32, 4, 2)),
    ),
    "amd": (
        (128, 3, Tiling(128, 64, 4, 1)),
        (256, 3, Tiling(128, 32, 4, 1)),
    ),
}

# Those of single precision.
_SINGLE = {
    "hopper": Tiling(128, 32, 8, 2),
    # Larger ones take more tensor memory than there is.
    "blackwell": Tiling(64, 32, 4, 2),
    "nvidia": Tiling(128, 16, 8, 2),
    "amd": Tiling(128, 32, 4, 1),
}


def forward(target: str, products: str, width: int, tier: int, bare: bool) -> Tiling:
    """Return the tiles of the forward pass.

    Args:
        target: "cuda:90", "hip:gfx942" and the like, or "interpreter".
        products: "half", or how float32 is multiplied.
        width: The larger of the widths of keys and values, as a power of 2.
        tier: Which statistics; see `Problem`.
        bare: Whether scores are products times a scale, without a block mask.
    """
    if products != "half":
        return _SINGLE[kind(target)]
    if kind(target) == "blackwell" and bare and tier == 2 and width <= 64:
        # What makes more of a score takes registers that this has not; with two tiles in flight they spill as well.
        return Tiling(128, 64, 8, 3)
    return next(tiles for widest, highest, tiles in _HALF[kind(target)] if width <= widest and tier <= highest)


def parts(target: str) -> int:
    """Return in how many parts the forward pass sums over keys: 1 where a thread has whole rows; see `moments`."""
    return 1 if kind(target) == "blackwell" else 8


def top(target: str, products: str) -> Tiling:
    """Return the tiles of the search for the largest scores; see `forward`."""
    return Tiling(64, 64, 4, 2) if products == "half" else Tiling(64, 32, 4, 2)


def of_queries(target: str, products: str, width: int, statistics: int) -> Tiling:
    """Return the tiles of the gradients of queries.

    Args:
        target: See `forward`.
        products: See `forward`.
        width: See `forward`.
        statistics: 0 if those of the output alone come, 1 if those of statistics as well, 2 if those of distances or
            columns are among them.
    """
    if products != "half":
        return Tiling(64, 32, 4, 2) if kind(target) == "hopper" else Tiling(32, 32, 4, 2)
    if kind(target) == "amd":
        return Tiling(64, 32, 4, 1)
    if kind(target) == "nvidia":
        return Tiling(64, 64, 8, 2)
    if statistics == 2 and (width > 64 or kind(target) == "blackwell"):
        return Tiling(128 if width <= 128 else 64, 32, 8, 2)
    return Tiling(128 if width <= 128 else 64, 64, 8, 2)


def of_keys(target: str, products: str, width: int, statistics: int) -> Tiling:
    """Return the tiles of the gradients of keys and values; see `of_queries`."""
    if products != "half":
        return Tiling(32, 32, 4, 2)
    if kind(target) == "amd":
        return Tiling(32, 32, 4, 1)
    if width > 128:
        return Tiling(32, 64, 8, 2)
    if kind(target) == "nvidia" and width > 64:
        return Tiling(64, 64, 8, 2)
    if statistics == 2 and (width > 64 or kind(target) == "blackwell"):
        # Larger ones take more of Blackwell's tensor memory than there is, and compile to a kernel without a product.
        return Tiling(32, 64, 8, 2)
    # What statistics need of each query takes the registers of half a tile.
    half = (statistics == 2 and kind(target) == "nvidia") or (statistics and width > 64)
    return Tiling(32 if half else 64, 128, 8, 2)


def received(target: str, products: str, width: int) -> Tiling:
    """Return the tiles of the second pass; see `forward`. Sides are at most `problem.MASS_BLOCK`."""
    if products != "half":
        return Tiling(64, 32, 4, 2)
    return Tiling(128 if width <= 128 else 64, 128, 8, 2)


def divergence(target: str, products: str, width: int) -> Tiling:
    """Return the tiles of a divergence; see `forward`. The width is the larger of those of the two models."""
    if products != "half":
        return Tiling(64, 16 if kind(target) == "nvidia" else 32, 4, _stages(target))
    if width > 128:
        return Tiling(64, 64 if kind(target) in ("hopper", "blackwell") else 32, 4, _stages(target))
    if kind(target) == "amd":
        return Tiling(128, 64, 4, 1)
    return Tiling(128, 128 if kind(target) == "hopper" else 64, 8, 2)


def divergence_of_queries(target: str, products: str, width: int) -> Tiling:
    """Return the tiles of the gradients of a divergence by queries; see `divergence`."""
    if products != "half":
        return Tiling(32, 32, 4, _stages(target))
    if width > 128 or kind(target) == "amd":
        return Tiling(32 if kind(target) == "nvidia" else 64, 32, 4, _stages(target))
    return Tiling(64 if kind(target) == "nvidia" and width > 64 else 128, 64, 8, 2)


def divergence_of_keys(target: str, products: str, width: int) -> Tiling:
    """Return the tiles of the gradients of a divergence by keys; see `divergence`."""
    if products != "half":
        return Tiling(32, 32, 4, _stages(target))
    if kind(target) == "amd":
        return Tiling(32, 32, 4, 1)
    if width > 128:
        return Tiling(32, 64, 8, 2)
    return Tiling(64, 64, 4, 2) if kind(target) == "nvidia" and width > 64 else Tiling(64, 128, 8, 2)


def _stages(target: str) -> int:
    return 1 if kind(target) == "amd" else 2
