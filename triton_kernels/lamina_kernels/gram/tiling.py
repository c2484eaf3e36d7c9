"""The sizes of tiles of sums over pairs of rows, by GPU and precision.

Chosen from compiled code alone, by `make test-aot` (instructions a score, registers, spills): no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lamina_kernels.tiles.target import kind


class Tiling(NamedTuple):
    """How the work of a program is cut.

    Attributes:
        rows: Rows of a tile of kernel values.
        columns: Its columns.
        whole: The widest rows of which a tile of x is loaded once, for all columns.
        warps: Warps of a program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    whole: int
    warps: int
    stages: int


_SUMS = {
    ("hopper", "half"): Tiling(128, 128, 128, 8, 2),
    ("hopper", "single"): Tiling(128, 64, 64, 8, 2),
    ("blackwell", "half"): Tiling(128, 64, 128, 8, 3),
    # With rows that are loaded once, six products of bfloat16 take more tensor memory than there is.
    ("blackwell", "single"): Tiling(128, 64, 0, 8, 2),
    ("nvidia", "half"): Tiling(128, 64, 128, 8, 2),
    ("nvidia", "single"): Tiling(64, 64, 0, 4, 2),
    ("amd", "half"): Tiling(128, 64, 64, 4, 2),
    ("amd", "single"): Tiling(64, 64, 32, 4, 2),
}


class ScoreTiling(NamedTuple):
    """How the work of a program is cut that multiplies rows by itself, not by `tile`; see `Tiling`.

    Attributes:
        rows: Rows of a tile of scores.
        columns: Its columns.
        chunk: Columns of x that are multiplied at a time.
        whole: The widest rows of which a tile of x is loaded once, for all columns.
        warps: Warps of a program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    chunk: int
    whole: int
    warps: int
    stages: int


# The others are as those of sums, in chunks of 64 columns in half precision and of 32 in single.
_SCORES = {
    ("nvidia", "bf16x6"): ScoreTiling(128, 64, 16, 0, 8, 3),
    ("amd", "bf16x6"): ScoreTiling(64, 64, 32, 0, 4, 2),
    ("amd", "ieee"): ScoreTiling(128, 64, 32, 64, 8, 2),
    # Of any other.
    ("", "tf32"): ScoreTiling(128, 64, 32, 64, 8, 2),
    ("", "ieee"): ScoreTiling(64, 64, 16, 0, 8, 2),
}


class GradientTiling(NamedTuple):
    """How the work of a program of the gradients is cut; see `Tiling`.

    Attributes:
        rows: Rows of a tile of kernel values.
        columns: Its columns.
        width: Columns of the gradients that a program makes.
        whole: The widest rows of which a tile of x is loaded once, for all columns.
        warps: Warps of a program.
        stages: Tiles in flight.
    """

    rows: int
    columns: int
    width: int
    whole: int
    warps: int
    stages: int


_GRADIENTS = {
    ("hopper", "half"): GradientTiling(128, 64, 128, 128, 8, 2),
    ("hopper", "single"): GradientTiling(64, 32, 64, 0, 4, 2),
    ("blackwell", "half"): GradientTiling(128, 64, 64, 0, 8, 2),
    ("blackwell", "single"): GradientTiling(64, 32, 64, 0, 4, 2),
    ("nvidia", "half"): GradientTiling(64, 64, 64, 64, 4, 2),
    ("nvidia", "single"): GradientTiling(32, 32, 64, 0, 4, 2),
    ("amd", "half"): GradientTiling(64, 32, 64, 64, 4, 1),
    ("amd", "single"): GradientTiling(32, 32, 64, 0, 4, 1),
}


def sums(target: str, products: str, kinds: Sequence[str]) -> Tiling:
    """Return the tiles of sums.

    Args:
        target: "cuda:90", "hip:gfx942" and the like, or "interpreter".
        products: "half", or how float32 is multiplied.
        kinds: Of the tiles of products that there are at a time; see `operands.Operands`.
    """
    tiles = _SUMS[kind(target), "half" if products == "half" else "single"]
    if "root" in kinds and kind(target) == "blackwell":
        # The compiler fails at its own matrix instruction beside a branch that makes a tile; fewer rows take the older.
        return Tiling(32, 64, 0, 4, 2)
    if "root" in kinds:
        # What recomputes near rows takes registers.
        tiles = tiles._replace(columns=min(tiles.columns, 64), whole=0)
    if len(kinds) > 1:
        # Two tiles take the registers of one twice as wide.
        tiles = tiles._replace(columns=tiles.columns // 2, whole=0)
    return tiles


def softmax(target: str, products: str, kinds: Sequence[str]) -> Tiling:
    """Return the tiles of means under a softmax; see `sums`."""
    tiles = sums(target, products, kinds)
    # On Blackwell, wider ones spill registers.
    return tiles._replace(columns=32) if kind(target) == "blackwell" else tiles


def gradients(target: str, products: str, kinds: Sequence[str]) -> GradientTiling:
    """Return the tiles of the gradients of sums; see `sums`."""
    tiles = _GRADIENTS[kind(target), "half" if products == "half" else "single"]
    if "root" in kinds and kind(target) == "blackwell":
        return GradientTiling(32, 64, 64, 0, 4, 2)
    if len(kinds) > 1:
        tiles = tiles._replace(rows=tiles.rows // 2, whole=0, warps=4)
    return tiles


def scores(target: str, products: str, group: int) -> ScoreTiling:
    """Return the tiles of scores that are summed two at a time, or searched.

    Args:
        target: See `sums`.
        products: See `sums`.
        group: Rows of a group on average. Tiles do not cross groups, so that small groups get narrow ones.
    """
    gpu = kind(target)
    chosen = _SCORES.get((gpu, products), _SCORES.get(("", products)))
    if chosen is None:
        half = products == "half"
        rows, columns, whole, warps, stages = _SUMS[gpu, "half" if half else "single"]
        chosen = ScoreTiling(rows, columns, 64 if half else 32, whole, warps, stages)
    return chosen if group > 32 else chosen._replace(columns=32)
