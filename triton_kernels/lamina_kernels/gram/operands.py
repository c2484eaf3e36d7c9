"""The rows of a kernel's bases as Triton kernels take them, in plain torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.functions import LOG2E
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.pointwise import function_of
from lamina_kernels.gram.terms import Branch, Leaf, Node, middle
from lamina_kernels.gram.tiling import Tiling
from lamina_kernels.tiles import descriptors
from lamina_kernels.tiles.rounding import PARTS, parts_of, round_to_tf32, scaled_to_half
from lamina_kernels.tiles.rows import ceil_div
from lamina_kernels.tiles.target import accurate

# The most columns that are multiplied at a time, by what multiplies them, and of rows that are loaded once.
CHUNK = {"half": 64, "bf16x6": 32, "bf16x3": 32, "fp16x3": 32, "tf32": 32, "ieee": 16}
# What float32 rows are that hold numbers of half precision, by the precision that says so.
EXACT = {"bf16": torch.bfloat16, "fp16": torch.float16}
UNBOUNDED = ("identity", "power", "softplus", "logarithm")


class Base(NamedTuple):
    """The rows of one base; leaves may share it.

    Attributes:
        x: [n, width]; each row contiguous inside, but for a "norm", whose columns are.
        y: [m, width], likewise.
        x_norms: [n] float32, |x|² of the rows as they are here; None for "dot" and "norm". Of "scaled" times the weight
            of the one leaf, and times log2(e) for "exp". Of "cosine" 1 / |x|, or 1 for a row of zeros.
        y_norms: [m], likewise.
        x_row: Elements from one row of x to the next.
        x_column: Elements from one column of x to the next.
        y_row: As of x.
        y_column: As of x.
        width: Columns.
        function: What is made of products and norms, of "own"; else None.
        x_parts: [n, parts * part_width] bfloat16, x taken apart, see `parts_of`; None for rows that are multiplied as
            they are, or taken apart in every tile.
        y_parts: [m, parts * part_width], likewise.
        parts_row: Elements from one row of them to the next.
        part_width: Columns of a part.
        units: [n] float32, what products with each row of x are to be multiplied with; None for 1. See `halved`.
        y_units: [m] float32, likewise with each row of y, of parts in float16; None for 1.
    """

    x: Any
    y: Any
    x_norms: Any
    y_norms: Any
    x_row: Any
    x_column: Any
    y_row: Any
    y_column: Any
    width: Any
    function: Any = None
    x_parts: Any = None
    y_parts: Any = None
    parts_row: Any = None
    part_width: Any = None
    units: Any = None
    y_units: Any = None


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
            base if kind == "norm" else _taken_apart(base, self.products, chunk)
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
            base if kind == "norm" else _halved(base) for (kind, _), base in zip(self.kinds, self.bases, strict=True)
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
        _scaled(_base(p, kind, span, rounds=products == "tf32"), p, leaves[0], kind)._replace(
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


def _scaled(base: Base, p: Pairs, leaf: Leaf, kind: str) -> Base:
    """Return a base with the norms of its one leaf: products with the weight would cost half an instruction a pair."""
    if kind != "scaled":
        return base
    weight = p.parameters[leaf.place, 0].float()
    if leaf.function == "exp":
        weight = weight * LOG2E
    x_norms = base.x_norms * weight
    return base._replace(x_norms=x_norms, y_norms=x_norms if base.y_norms is base.x_norms else base.y_norms * weight)


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


def part_width(width: int, chunk: int) -> int:
    """Return the columns of a part of rows: a multiple of a chunk, or a power of 2 that a matrix instruction takes."""
    return ceil_div(width, chunk) * chunk if width > chunk else max(16, 1 << (width - 1).bit_length())


def _taken_apart(base: Base, products: str, chunk: int) -> Base:
    parts, width = PARTS[products], part_width(base.width, chunk)
    if products == "fp16x3":
        x, units = scaled_to_half(base.x, width, together=False, parts=parts)
        y, y_units = (x, units) if base.y is base.x else scaled_to_half(base.y, width, together=False, parts=parts)
        base = base._replace(units=units, y_units=y_units)
    else:
        x = parts_of(base.x, parts, width)
        y = x if base.y is base.x else parts_of(base.y, parts, width)
    return base._replace(x_parts=x, y_parts=y, parts_row=parts * width, part_width=width)


def _halved(base: Base) -> Base:
    width = part_width(base.width, CHUNK["half"])
    x, x_units = scaled_to_half(base.x, width, together=False)
    y, y_unit = scaled_to_half(base.y, width, together=True)
    return base._replace(
        x=x, y=y, x_row=width, y_row=width, x_column=1, y_column=1, width=width, units=x_units * y_unit
    )


def _base(p: Pairs, kind: str, columns: tuple[int, int], *, rounds: bool) -> Base:
    x, y = (rows[:, slice(*columns)] for rows in (p.x, p.y))
    if p.same:
        y = x
    if kind == "norm":
        # Columns are loaded one at a time, whole ones from consecutive memory.
        x_rows = x.T.contiguous().T
        y_rows = x_rows if y is x else y.T.contiguous().T
        return _named(x_rows, y_rows, None, None)
    if kind not in ("dot", "cosine", "own"):
        x, y = moved(x, y)
    if rounds and x.dtype == torch.float32:
        same = y is x
        x = round_to_tf32(x)
        y = x if same else round_to_tf32(y)
    same = y is x
    x = _contiguous(x)
    y = x if same else _contiguous(y)
    if kind == "dot":
        return _named(x, y, None, None)
    norms = _inverse_lengths if kind == "cosine" else _norms
    x_norms = norms(x)
    return _named(x, y, x_norms, x_norms if same else norms(y))


def _named(x: Tensor, y: Tensor, x_norms: Tensor | None, y_norms: Tensor | None) -> Base:
    return Base(x, y, x_norms, y_norms, x.stride(0), x.stride(1), y.stride(0), y.stride(1), x.shape[1])


def moved(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows moved by the mean of y, in which distances do not change; y is x again if it was.

    |x|² + |y|² - 2 <x, y> then cancels less. Rows in half precision are moved in the columns where this rounds none of
    them: far from zero, where it matters.
    """
    shift = middle(y)
    if x.dtype == torch.float32:
        own = x - shift.float()
        return own, own if y is x else y - shift.float()
    shift = shift.to(x.dtype)
    exact = _is_exact(x, shift) if y is x else _is_exact(x, shift) & _is_exact(y, shift)
    shift = torch.where(exact, shift, 0)
    own = x - shift
    return own, own if y is x else y - shift


def _is_exact(rows: Tensor, shift: Tensor) -> Tensor:
    """Return for each column whether the rows lose no digit when they are moved; broken rows count for none."""
    far = rows.float() - shift.float()
    return ((rows - shift).float() == far).logical_or_(far.isnan()).all(0)


def _contiguous(rows: Tensor) -> Tensor:
    return rows if rows.stride(1) == 1 or rows.shape[1] <= 1 else rows.contiguous()


def _norms(rows: Tensor) -> Tensor:
    return rows.float().square().sum(1)


def _inverse_lengths(rows: Tensor) -> Tensor:
    squares = _norms(rows)
    return torch.where(squares == 0, 1, squares).rsqrt()
