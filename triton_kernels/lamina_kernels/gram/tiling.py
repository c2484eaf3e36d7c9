"""The sizes of tiles of sums over pairs of rows, by GPU and precision.

Chosen from compiled code alone, by `make test-aot` (instructions a score, registers, spills): no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lamina_kernels.tiles.rounding import PARTS
from lamina_kernels.tiles.target import kind


class Tiling(NamedTuple):
    """How the work of a program is cut.

    Attributes:
        rows: Rows of a tile of kernel values.
        columns: Its columns.
        whole: The widest rows of which a tile of x is loaded once, for all columns.
        warps: Warps of a program.
        stages: Tiles in flight.
        width: Columns of rows that a program multiplies at a time (scores, parts of float32), or makes gradients of.
        together: Chunks of wider rows that are multiplied in a turn; see `tiles.dot.dot_of_chunks`.
        described: Whether sums load rows by descriptors.
    """

    rows: int
    columns: int
    whole: int
    warps: int
    stages: int
    width: int = 0
    together: int = 1
    described: bool = False


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
    # Of float32 that was taken apart ahead; not on Blackwell, whose newest matrix instruction spills registers then.
    ("hopper", "parts"): Tiling(128, 64, 0, 8, 2, 64),
    ("nvidia", "parts"): Tiling(64, 64, 0, 4, 2, 32),
    ("amd", "parts"): Tiling(64, 64, 0, 4, 2, 32),
}

# In half precision, with registers for many pairs a thread: of rows that are loaded whole, and of wider ones.
_SLIM = {
    ("hopper", "whole"): Tiling(128, 128, 128, 4, 2, described=True),
    ("hopper", "wide"): Tiling(128, 256, 128, 8, 2, together=2, described=True),
    ("blackwell", "wide"): Tiling(128, 128, 128, 8, 3, described=True),
}

# The others are as those of sums, in chunks of 64 columns in half precision and of 32 in single.
_SCORES = {
    ("nvidia", "bf16x6"): Tiling(128, 64, 0, 8, 3, 16),
    ("nvidia", "parts"): Tiling(128, 64, 0, 8, 3, 16),
    ("amd", "bf16x6"): Tiling(64, 64, 0, 4, 2, 32),
    ("amd", "ieee"): Tiling(128, 64, 64, 8, 2, 32),
    # Of any other.
    ("", "tf32"): Tiling(128, 64, 64, 8, 2, 32),
    ("", "ieee"): Tiling(64, 64, 0, 8, 2, 16),
}

_NEAREST = {
    "hopper": Tiling(128, 256, 128, 8, 2, 64, 2),
    "blackwell": Tiling(128, 128, 128, 8, 3, 64),
}

_GRADIENTS = {
    ("hopper", "half"): Tiling(128, 64, 128, 8, 2, 128),
    ("hopper", "single"): Tiling(64, 32, 0, 4, 2, 64),
    ("blackwell", "half"): Tiling(128, 64, 0, 8, 2, 64),
    ("blackwell", "single"): Tiling(64, 32, 0, 4, 2, 64),
    ("nvidia", "half"): Tiling(64, 64, 64, 4, 2, 64),
    ("nvidia", "single"): Tiling(32, 32, 0, 4, 2, 64),
    ("amd", "half"): Tiling(64, 32, 64, 4, 1, 64),
    ("amd", "single"): Tiling(32, 32, 0, 4, 1, 64),
}


def parts(target: str, products: str) -> int:
    """Return how many parts float32 rows are taken apart into, see `rounding.parts_of`; 0 for rows that stay."""
    return PARTS.get(products, 0) if (kind(target), "parts") in _SUMS else 0


def sums(target: str, products: str, kinds: Sequence[str], *, slim: bool = False, width: int = 0) -> Tiling:
    """Return the tiles of sums.

    Args:
        target: "cuda:90", "hip:gfx942" and the like, or "interpreter".
        products: "half", or how float32 is multiplied.
        kinds: Of the tiles of products that there are at a time; see `operands.Operands`.
        slim: Whether a tile needs few registers beside its products, see `sums.launch.is_slim`.
        width: Columns of rows.
    """
    apart = parts(target, products) > 0
    tiles = _SUMS[kind(target), "half" if products == "half" else "parts" if apart else "single"]
    if slim and len(kinds) == 1 and "root" not in kinds:
        # Where a product is most of the work: as few loads for it as there are registers for.
        if products == "half":
            tiles = _SLIM.get((kind(target), "wide" if width > tiles.whole else "whole"), tiles)
        elif apart and kind(target) == "hopper":
            tiles = tiles._replace(columns=128)
    if list(kinds) == ["norm"]:
        # Differences are added up in registers: the larger a thread's part, the fewer numbers are loaded for each.
        return Tiling(128, 128, 0, 4, 1)
    if "root" in kinds and kind(target) == "blackwell":
        # The compiler fails at its own matrix instruction beside a branch that makes a tile; fewer rows take the older.
        return Tiling(32, 64, 0, 4, 2)
    if "root" in kinds:
        # What recomputes near rows takes registers.
        tiles = tiles._replace(columns=min(tiles.columns, 64), whole=0, width=min(tiles.width, 32))
    if len(kinds) > 1:
        # Two tiles take the registers of one twice as wide.
        tiles = tiles._replace(columns=tiles.columns // 2, whole=0)
    return tiles


def softmax(target: str, products: str, kinds: Sequence[str], *, slim: bool = False) -> Tiling:
    """Return the tiles of means under a softmax; see `sums`."""
    tiles = sums(target, products, kinds, slim=slim)
    # On Blackwell, wider ones spill registers.
    return tiles._replace(columns=32) if kind(target) == "blackwell" else tiles


def sides(target: str, products: str, kinds: Sequence[str], *, slim: bool = False) -> Tiling:
    """Return the tiles of log-sum-exps along both sides; see `sums`."""
    tiles = softmax(target, products, kinds, slim=slim and products != "half")
    # A column is summed within a warp first: of few warps each has more of its rows.
    return tiles._replace(columns=64, warps=4) if products == "half" and kind(target) == "hopper" else tiles


def gradients(target: str, products: str, kinds: Sequence[str]) -> Tiling:
    """Return the tiles of the gradients of sums; see `sums`."""
    tiles = _GRADIENTS[kind(target), "half" if products == "half" else "single"]
    if "root" in kinds and kind(target) == "blackwell":
        return Tiling(32, 64, 0, 4, 2, 64)
    if len(kinds) > 1:
        tiles = tiles._replace(rows=tiles.rows // 2, whole=0, warps=4)
    # Chunks without masks were not compiled here yet.
    return tiles._replace(together=0)


def scores(target: str, products: str, group: int, kinds: Sequence[str] = ()) -> Tiling:
    """Return the tiles of scores that are summed two at a time, or searched.

    Args:
        target: See `sums`.
        products: See `sums`; or "parts", of rows that were taken apart ahead.
        group: Rows of a group on average. Tiles do not cross groups, so that small groups get narrow ones.
        kinds: See `sums`; nothing where only products are searched.
    """
    gpu = kind(target)
    if "root" in kinds and gpu == "blackwell":
        return Tiling(32, 32, 0, 4, 2, 64)
    chosen = _SCORES.get((gpu, products), _SCORES.get(("", products)))
    if chosen is None:
        chosen = _SUMS[gpu, products if products in ("half", "parts") else "single"]
        chosen = chosen._replace(width=chosen.width or (64 if products == "half" else 32))
    if "root" in kinds or len(kinds) > 2:
        # As of sums: what recomputes near rows takes registers, and so do more tiles than two.
        chosen = chosen._replace(columns=32, whole=0)
    elif gpu == "hopper" and not set(kinds) <= {"dot"}:
        # Two tiles of distances leave no registers for rows that stay.
        chosen = chosen._replace(whole=0)
    return chosen if group > 32 else chosen._replace(columns=32)


def nearest(target: str, products: str, group: int, top: int, *, grouped: bool) -> Tiling:
    """Return the tiles of a search for the nearest rows.

    Args:
        target: See `sums`.
        products: See `sums`.
        group: Rows of y; see `scores`.
        top: How long the lists of rows are.
        grouped: Whether pairs of a group are left out.
    """
    apart = parts(target, products) > 0
    # Three products take the tiles of six.
    tile = scores(target, "parts" if apart else "bf16x6" if products == "bf16x3" else products, group)
    if products in ("half", "tf32") and kind(target) in _NEAREST and group > 32:
        whole, width = (tile.whole, 64) if products == "half" else (64, 32)
        tile = _NEAREST[kind(target)]._replace(whole=whole, width=width)
        # Numbers of groups take registers.
        return tile._replace(rows=64) if grouped else tile
    # Lists of 32 entries and more leave registers for smaller tiles alone.
    if top >= 32 and products in ("half", "tf32"):
        return tile._replace(rows=64, columns=128 if top == 32 else 64, width=min(tile.width, 32))
    if top >= 64:
        return tile._replace(rows=64)
    return tile._replace(columns=128) if apart and tile.rows == 128 else tile
