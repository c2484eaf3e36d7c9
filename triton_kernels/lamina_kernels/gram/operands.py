"""All bases of a kernel as Triton kernels take them: their rows, and the tree over them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch

from lamina_kernels.gram.base import CHUNK, Base, base_of, halved, scaled, taken_apart
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.pointwise import function_of
from lamina_kernels.gram.terms import Branch, Leaf, Node
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles import descriptors
from lamina_kernels.tiles.rounding import PARTS
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import accurate

# What float32 rows are that hold numbers of half precision, by the precision that says so.
EXACT = {"bf16": torch.bfloat16, "fp16": torch.float16}
UNBOUNDED = ("identity", "power", "softplus", "logarithm")


class Operands(NamedTuple):
    """All bases, and the tree as Triton compiles it; see `tree`.

    Attributes:
        bases: The bases.
        code: The tree.
        kinds: Of each base, its kind and its norm, or the number of its function.
        columns: Of each base, where its columns start and stop in the rows of the pairs.
        products: How rows are multiplied: "half", or the precision of float32.
        chunk: Columns of parts that are multiplied at a time; 0 if there are none.
    """

    bases: tuple[Base, ...]
    code: str
    kinds: tuple[tuple[str, float], ...]
    columns: tuple[tuple[int, int], ...]
    products: str
    chunk: int = 0

    def base_code(self, whole: int, *, together: int = 0, chunk: int | None = None, filled: bool = False) -> str:
        """Return the bases as Triton compiles them.

        Args:
            whole: The widest rows of which a tile of x is loaded once.
            together: Chunks of wider ones that are multiplied in a turn, at most; see `dot_of_chunks`.
            chunk: Columns of a chunk; None for those of `CHUNK`.
            filled: Whether rows are filled up to whole chunks.
        """
        chunk = CHUNK[self.products] if chunk is None else chunk
        step = chunk if filled else 1
        codes = (
            f"{kind}:{norm}:{_cut(ceil_div(base.width, step) * step, whole, chunk, together)}"
            if base.x_parts is None
            else f"{kind}:{norm}:{_cut(base.part_width, self.chunk, self.chunk, 1)}"
            for (kind, norm), base in zip(self.kinds, self.bases, strict=True)
        )
        return " ".join(codes)

    def taken_apart(self, chunk: int) -> Operands:
        """Return the same with the parts of float32 rows, in multiples of a chunk; 0 is for rows that are not parted.

        A row would be taken apart in each of the tiles that it is part of. The parts take 2 bytes a number each.
        """
        if not chunk or self.products not in PARTS:
            return self
        bases = (
            base if kind == "norm" else taken_apart(base, self.products, chunk)
            for (kind, _), base in zip(self.kinds, self.bases, strict=True)
        )
        return self._replace(bases=tuple(bases), chunk=chunk)

    def halved(self) -> Operands:
        """Return the same with rows for TF32 as float16 times powers of 2: as many digits, multiplied twice as fast.

        One power for all rows of y, so that it costs no pair an operation, and one for each row of x, so that none has
        a say in the results of others: small numbers beside the largest of y are as coarse as that one's are in these
        results. Where distances have roots, rows stay: those that are near are taken from each other.
        """
        if self.products != "tf32" or any(kind == "root" for kind, _ in self.kinds):
            return self
        bases = (
            base if kind == "norm" else halved(base) for (kind, _), base in zip(self.kinds, self.bases, strict=True)
        )
        return self._replace(bases=tuple(bases), products="half")

    def by_descriptors(self, tile: Tiling, of_v: dict[str, Any], target: str) -> dict[str, Any]:
        """Return descriptors of the first base's rows and of v, and the bases as Triton compiles them then; or None.

        They fill the last chunk, and take as many chunks as make a turn for one.
        """
        none = {"x_tiles": None, "y_tiles": None}
        if not tile.described or not descriptors.takes_descriptors(target):
            return none
        base, (first, *others) = self.bases[0], self.base_code(tile.whole, together=tile.together).split()
        kind, norm, chunk, turn = first.split(":")
        columns = int(chunk)
        if turn != "whole":
            columns *= turn_of(ceil_div(base.width, columns) * columns, columns, tile.together)
            turn = "1"
        x = descriptors.aligned(base.x)
        y = x if base.y is base.x else descriptors.aligned(base.y)
        sizes = {"x_tiles": (tile.rows, columns), "y_tiles": (tile.columns, columns)}
        rows = {"x_tiles": x, "y_tiles": y}
        if of_v["VALUES"] > 1:
            rows["v"], sizes["v"] = descriptors.aligned(of_v["v"]), (tile.columns, of_v["VALUES"])
        made = descriptors.described(rows, sizes, target)
        if not made.pop("DESCRIPTORS"):
            return none
        return {**made, "BASES": " ".join([f"{kind}:{norm}:{columns}:{turn}", *others])}

    def swapped(self) -> Operands:
        """Return the same with x and y in each other's place: every base is symmetric."""
        turned = (
            Base(b.y, b.x, b.y_norms, b.x_norms, b.y_row, b.y_column, b.x_row, b.x_column, b.width, b.function)
            for b in self.bases
        )
        return self._replace(bases=tuple(turned))


def products_of(p: Pairs, target: str) -> str:
    """Return how a target multiplies rows: "half", or the precision of float32."""
    is_half = p.x.dtype != torch.float32 or p.precision in EXACT
    return "half" if is_half else in_tiles(p.precision, target)


def in_tiles(precision: str | None, target: str) -> str:
    """Return how a target multiplies float32 that was not taken apart ahead; nobody makes float16 parts of a tile."""
    return accurate(target) if precision in (None, "fp16x3") else precision


def prepare(p: Pairs, products: str) -> Operands:
    """Return the bases of a kernel, each of as many leaves as share it; for `products` see `Operands`."""
    if products == "half" and p.precision in EXACT:
        p = replace(p, x=p.x.to(EXACT[p.precision]), y=p.y.to(EXACT[p.precision]))
    members: dict[tuple[str, float, int, int], list[Leaf]] = {}
    for leaf in _leaves(p.tree):
        members.setdefault(_key(leaf), []).append(leaf)
    numbers = {leaf.place: number for number, leaves in enumerate(members.values()) for leaf in leaves}
    kinds = tuple((_base_kind(leaves), key[1]) for key, leaves in members.items())
    columns = tuple((start, stop) for *_, start, stop in members)
    made = tuple(
        scaled(base_of(p, kind, span, rounds=products == "tf32"), p, leaves[0], kind)._replace(
            function=function_of(int(number)) if kind == "own" else None
        )
        for (kind, number), span, leaves in zip(kinds, columns, members.values(), strict=True)
    )
    return Operands(made, _encoded(p.tree, numbers), kinds, columns, products)


def is_bounded(node: Node) -> bool:
    """Return whether values are small numbers, which half precision holds, whatever the rows."""
    return all(leaf.function not in UNBOUNDED for leaf in _leaves(node))


def _leaves(node: Node) -> list[Leaf]:
    return [node] if isinstance(node, Leaf) else [*_leaves(node.left), *_leaves(node.right)]


def _kind(leaf: Leaf) -> str:
    return leaf.base if leaf.base != "norm" else "root" if leaf.norm == 2 else "norm"


def _key(leaf: Leaf) -> tuple[str, float, int, int]:
    """Return what leaves that share a base have in common: squared distances serve roots too."""
    kind = _kind(leaf)
    number = leaf.norm if kind == "norm" else float(leaf.degree) if kind == "own" else 0.0
    return "square" if kind == "root" else kind, number, leaf.start, leaf.stop


def _base_kind(leaves: list[Leaf]) -> str:
    kinds = {_kind(leaf) for leaf in leaves}
    kind = "root" if "root" in kinds else kinds.pop()
    return "scaled" if kind == "square" and len(leaves) == 1 else kind


def _encoded(node: Node, numbers: dict[int, int]) -> str:
    if isinstance(node, Branch):
        return f"{_encoded(node.left, numbers)} {_encoded(node.right, numbers)} {node.operator}"
    return f"{_kind(node)}:{node.function}:{node.degree}:{numbers[node.place]}:{node.place}"


def _cut(width: int, whole: int, chunk: int, together: int) -> str:
    """Return how many columns are multiplied at a time (a matrix instruction takes at least 16), and how many times.

    That is "whole" for all at once, or as many chunks as a turn of a loop takes, see `turn_of`.
    """
    if width <= whole:
        return f"{max(16, 1 << (width - 1).bit_length())}:whole"
    return f"{chunk}:{turn_of(width, chunk, together)}"


def turn_of(width: int, chunk: int, together: int) -> int:
    """Return how many chunks of rows of this width a turn of `dot_of_chunks` takes; 0 if the last may not be whole."""
    return next((turn for turn in range(together, 0, -1) if width and width % (turn * chunk) == 0), 0)
