"""A tile of kernel values k(x_i, y_j), [R, C] float32, in Triton: what every reduction over pairs starts with.

A kernel takes `bases` (a tuple of `base.Base`), `parameters` ([leaves, 2] float32), and the strings CODE and
BASES that `Operands` holds, and computes

    numbers = numbers_of(parameters, CODE)
    left = rows_of(bases, rows, rows < n, BASES)                 # once, before the walk over columns
    at = at_of(walk, turn, rows, rows < n, 0, m, …)              # [R] and [C]: numbers of rows of x and of y
    itself = itself_of(at, EDGE, SAME)
    products = products_of(bases, left, at, itself, BASES, PRECISION)
    k = values(products, bases, numbers, at, itself, CODE, BASES)

`itself` is [R, C], where both rows are one and the same, or None. Rows beyond the edge are taken for zeros: the values
there are some numbers, which the reduction masks.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.tile_functions import KEEP_NAN, LOG2E, power, value
from lamina_kernels.gram.walk import tile_at
from lamina_kernels.tiles.dot import dot_of_chunks, dot_of_rows, dot_of_tiles, dot_rows
from lamina_kernels.tiles.load import INDEX, load_rows

# Where a squared distance is a smaller part of its rows' squared norms, it has lost too many digits for its root.
LOST = tl.constexpr(2.0**-8)


class At(NamedTuple):
    """Where a tile lies.

    Attributes:
        rows: [R], rows of x.
        rows_valid: [R], whether they exist.
        columns: [C], rows of y, one behind the other.
        columns_valid: [C], whether they exist.
        first: The first of the columns.
    """

    rows: tl.tensor
    rows_valid: tl.tensor
    columns: tl.tensor
    columns_valid: tl.tensor
    first: tl.tensor


@triton.jit
def at_of(
    walk, turn, rows, rows_valid, start, stop, EDGE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Return where a tile of the columns from `start` to `stop` lies."""
    first = start + tile_at(walk, turn, EDGE) * COLUMNS
    columns = first + tl.arange(0, COLUMNS)
    if EDGE:
        return At(rows, rows_valid, columns, columns < stop, first)
    else:
        return At(rows, rows_valid, columns, tl.full([COLUMNS], True, tl.int1), first)


@triton.jit  # noqa: RET503
def itself_of(at, EDGE: tl.constexpr, SAME: tl.constexpr):
    """Return where rows meet themselves in a tile, [R, C]; None where they cannot."""
    # not `return None`, and not in a tuple with `at`: Triton 3.6 compiles neither
    if SAME and EDGE:
        return at.rows[:, None] == at.columns[None, :]


@triton.jit
def numbers_of(parameters, CODE: tl.constexpr):
    """Return weight (times log2(e) of "exp") and shape of each leaf, one behind the other, as `values` takes them."""
    numbers = ()
    for number in tl.static_range(tree.leaves(CODE)):  # pyright: ignore[reportGeneralTypeIssues]
        weight = tl.load(parameters + 2 * number)
        if tree.function(tree.leaf_at(CODE, number)) == "exp":
            weight *= LOG2E
        numbers = numbers + (weight, tl.load(parameters + 2 * number + 1))  # noqa: RUF005
    return numbers


@triton.jit
def rows_of(bases, rows, rows_valid, BASES: tl.constexpr, x_tiles=None, first=None):
    """Return what is loaded once of each base: its rows of x, if they are multiplied whole; else anything.

    A descriptor `x_tiles` loads those of the first base, from the row `first` on, which is returned for chunks.
    """
    left = ()
    for number in tl.static_range(tree.bases(BASES)):  # pyright: ignore[reportGeneralTypeIssues]
        if number > 0 or x_tiles is None:
            left = left + (_rows(bases[number], rows, rows_valid, number, BASES),)  # noqa: RUF005
        elif tree.is_whole(BASES, 0):
            left = left + (x_tiles.load([first, 0]),)  # noqa: RUF005
        else:
            left = left + (first,)  # noqa: RUF005
    return left


@triton.jit
def products_of(bases, left, at, itself, BASES: tl.constexpr, PRECISION: tl.constexpr, x_tiles=None, y_tiles=None):
    """Return a tile of each base: products of rows, squared distances ("root"), distances ("norm"), values ("own").

    Descriptors load the rows of the first base, if there are any.
    """
    products = ()
    for number in tl.static_range(tree.bases(BASES)):  # pyright: ignore[reportGeneralTypeIssues]
        tile = _product(
            bases[number], left[number], x_tiles if number == 0 else None, y_tiles, at, itself, number, BASES, PRECISION
        )
        products = products + (tile,)  # noqa: RUF005
    return products


@triton.jit
def values(products, bases, numbers, at, itself, CODE: tl.constexpr, BASES: tl.constexpr):
    """Return the tile of a tree."""
    if tree.is_leaf(CODE):
        u = argument(products, bases, numbers, at, itself, CODE, BASES)
        return value(u, numbers[2 * tree.place(CODE) + 1], tree.function(CODE), tree.degree(CODE))
    else:
        a = values(products, bases, numbers, at, itself, tree.left(CODE), BASES)
        b = values(products, bases, numbers, at, itself, tree.right(CODE), BASES)
        if tree.operator(CODE) == "+":
            return a + b
        else:
            return a * b


@triton.jit
def argument(products, bases, numbers, at, itself, LEAF: tl.constexpr, BASES: tl.constexpr):
    """Return u = w t of a leaf."""
    weight, tile = numbers[2 * tree.place(LEAF)], products[tree.base_of(LEAF)]
    KIND: tl.constexpr = tree.base_kind(BASES, tree.base_of(LEAF))
    if KIND == "square" or KIND == "scaled":
        x_norms, y_norms = _norms(bases[tree.base_of(LEAF)], at)  # pyright: ignore[reportGeneralTypeIssues]
        if KIND == "square":
            x_norms, y_norms = x_norms * weight, y_norms * weight
        # The norms first: with x and y in each other's place it is the same. At most 0, as w is below 0; where it is
        # used, a sign costs no instruction.
        factor = weighted(-2.0 * weight, bases[tree.base_of(LEAF)], at)
        u = tl.abs(tile * factor + (x_norms[:, None] + y_norms[None, :])) * -1.0
        if itself is not None:
            u = tl.where(itself, 0.0, u)
        return u
    elif KIND == "cosine":
        x_norms, y_norms = _norms(bases[tree.base_of(LEAF)], at)  # pyright: ignore[reportGeneralTypeIssues]
        return tile * weighted(weight * x_norms[:, None], bases[tree.base_of(LEAF)], at) * y_norms[None, :]
    elif tree.kind(LEAF) == "root":
        return tl.sqrt(tile) * weight
    elif tree.kind(LEAF) == "dot":
        return tile * weighted(weight, bases[tree.base_of(LEAF)], at)
    else:
        return tile * weight


@triton.jit
def weighted(weight, base, at):
    """Return what a tile of products is multiplied with: the weight of a leaf, times the units of rows that have some.

    Those of x cost a row an operation, and no pair; those of y each pair one.
    """
    if base.units is not None:
        weight *= tl.load(base.units + at.rows.to(INDEX), mask=at.rows_valid, other=0.0)[:, None]
    if base.y_units is not None:
        weight *= tl.load(base.y_units + at.columns.to(INDEX), mask=at.columns_valid, other=0.0)[None, :]
    return weight


@triton.jit
def differences(base, at, NORM: tl.constexpr):
    """Return sums over the dimensions of |x - y|^NORM, or the largest |x - y|, one dimension at a time."""
    total = tl.zeros([at.rows.shape[0], at.columns.shape[0]], tl.float32)
    x = base.x + at.rows.to(INDEX) * base.x_row
    y = base.y + at.columns.to(INDEX) * base.y_row
    for dimension in range(base.width):
        step = tl.cast(dimension, INDEX)
        a = tl.load(x + step * base.x_column, mask=at.rows_valid, other=0.0).to(tl.float32)
        b = tl.load(y + step * base.y_column, mask=at.columns_valid, other=0.0).to(tl.float32)
        apart = tl.abs(a[:, None] - b[None, :])
        if NORM == 1:
            total += apart
        elif float("inf") == NORM:
            total = tl.maximum(total, apart, propagate_nan=KEEP_NAN)
        else:
            total += raised(apart, NORM)
    return total


@triton.jit
def raised(x, EXPONENT: tl.constexpr):
    """Return x^EXPONENT for x at least 0 and an exponent above 0; 0 stays 0, NaN stays NaN."""
    if EXPONENT == 2 or EXPONENT == 3 or EXPONENT == 4:
        return power(x, int(EXPONENT))
    else:
        return tl.where(x > 0.0, tl.exp2(tl.log2(tl.where(x > 0.0, x, 1.0)) * EXPONENT), x)


@triton.jit
def _rows(base, rows, rows_valid, NUMBER: tl.constexpr, BASES: tl.constexpr):
    if base.x_parts is None and tree.base_kind(BASES, NUMBER) != "norm" and tree.is_whole(BASES, NUMBER):
        return load_rows(base.x, rows, base.x_row, rows_valid, 0, base.width, tree.chunk(BASES, NUMBER))
    else:
        return rows


@triton.jit
def _norms(base, at):
    """Return |x|² and |y|², [R] and [C], or what a base has in their place."""
    return (
        tl.load(base.x_norms + at.rows.to(INDEX), mask=at.rows_valid, other=0.0),
        tl.load(base.y_norms + at.columns.to(INDEX), mask=at.columns_valid, other=0.0),
    )


@triton.jit
def _product(
    base, left, x_tiles, y_tiles, at, itself,
    NUMBER: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    if tree.base_kind(BASES, NUMBER) == "norm":
        total = differences(base, at, tree.norm(BASES, NUMBER))
        if tree.norm(BASES, NUMBER) == 1 or tree.norm(BASES, NUMBER) == float("inf"):
            return total
        else:
            return raised(total, 1.0 / tree.norm(BASES, NUMBER))
    else:
        if x_tiles is not None:
            if tree.is_whole(BASES, NUMBER):
                none = tl.zeros([at.rows.shape[0], at.columns.shape[0]], tl.float32)
                tile = dot_rows(left, y_tiles.load([at.first, 0]), none, PRECISION)
            else:
                tile = dot_of_tiles(
                    x_tiles, left, y_tiles, at.first, base.width, PRECISION,
                    at.rows.shape[0], at.columns.shape[0], tree.chunk(BASES, NUMBER),
                )  # fmt: skip
        elif base.x_parts is not None:
            tile = dot_of_chunks(
                base.x_parts, at.rows, base.parts_row, at.rows_valid, base.y_parts, at.first, base.parts_row,
                at.columns_valid, base.part_width, PRECISION, tree.chunk(BASES, NUMBER),
                0 if tree.is_whole(BASES, NUMBER) else tree.together(BASES, NUMBER),
            )  # fmt: skip
        elif tree.is_whole(BASES, NUMBER):
            # What is added to the address of the first is the same in every tile.
            right = load_rows(
                base.y + at.first.to(INDEX) * base.y_row, tl.arange(0, at.columns.shape[0]), base.y_row,
                at.columns_valid, 0, base.width, tree.chunk(BASES, NUMBER),
            )  # fmt: skip
            tile = dot_rows(left, right, tl.zeros([at.rows.shape[0], at.columns.shape[0]], tl.float32), PRECISION)
        elif tree.together(BASES, NUMBER) > 0:
            tile = dot_of_chunks(
                base.x, at.rows, base.x_row, at.rows_valid, base.y, at.first, base.y_row, at.columns_valid,
                base.width, PRECISION, tree.chunk(BASES, NUMBER), tree.together(BASES, NUMBER),
            )  # fmt: skip
        else:
            tile = dot_of_rows(
                base.x, at.rows, base.x_row, at.rows_valid, base.y, at.columns, base.y_row, at.columns_valid,
                base.width, PRECISION, tree.chunk(BASES, NUMBER),
            )  # fmt: skip
        KIND: tl.constexpr = tree.base_kind(BASES, NUMBER)
        if base.units is not None and (KIND == "root" or KIND == "own"):
            tile *= weighted(1.0, base, at)
        if tree.base_kind(BASES, NUMBER) == "root":
            return _squared_distances(tile, base, at, itself)
        elif tree.base_kind(BASES, NUMBER) == "own":
            x_norms, y_norms = _norms(base, at)  # pyright: ignore[reportGeneralTypeIssues]
            found = base.function(tile, x_norms[:, None], y_norms[None, :])
            # A function may be infinite of no rows at all, and infinity times 0 is NaN.
            return tl.where(at.rows_valid[:, None] & at.columns_valid[None, :], found, 0.0)
        else:
            return tile


@triton.jit
def _squared_distances(products, base, at, itself):
    """Return squared distances whose roots have their digits: of near rows, from differences.

    A tile that holds a near pair, which is not a row and itself, is computed anew.
    """
    x_norms, y_norms = _norms(base, at)  # pyright: ignore[reportGeneralTypeIssues]
    squares = x_norms[:, None] + y_norms[None, :] - 2.0 * products
    squares = tl.maximum(squares, 0.0, propagate_nan=KEEP_NAN)
    others = squares
    if itself is not None:
        others = tl.where(itself, float("inf"), squares)
    # A row that is broken, or is none, hides no other.
    largest = tl.max(tl.where(y_norms < float("inf"), y_norms, 0.0), 0)
    least = tl.min(tl.where(others < float("inf"), others, float("inf")), 1)
    lost = at.rows_valid & (least < (x_norms + largest) * LOST)
    if tl.max(lost.to(tl.int32), 0) > 0:
        squares = differences(base, at, 2)
    if itself is not None:
        squares = tl.where(itself, 0.0, squares)
    return squares
