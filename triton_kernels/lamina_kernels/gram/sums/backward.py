"""The Triton kernel of the gradients of sums by the rows of one side, and with them by the kernel's parameters.

With x and y in each other's place it has the gradients by the rows of y: every base is symmetric.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.sums.weights import hidden, weighed
from lamina_kernels.gram.tile import argument, itself_of, values
from lamina_kernels.gram.tile_functions import by_shape, has_shape, slope, value
from lamina_kernels.gram.walk import turns
from lamina_kernels.tiles.dot import INTERPRETED, dot, dot_of_rows, rounded_for
from lamina_kernels.tiles.load import INDEX, load_rows

LN2 = tl.constexpr(0.6931471805599453)
# Sums of a tile are float32; those of the parameters' gradients are kept in this dtype.
ACROSS_TILES = tl.constexpr(tl.float64)


@triton.jit
def down(g, products, bases, numbers, at, itself, CODE: tl.constexpr, BASES: tl.constexpr, PLACE: tl.constexpr):
    """Return the gradient of a leaf's values from that of the tree's: times all that its values are multiplied with."""
    if tree.is_leaf(CODE):
        return g
    elif tree.holds(tree.left(CODE), PLACE):
        if tree.operator(CODE) == "*":
            g = g * values(products, bases, numbers, at, itself, tree.right(CODE), BASES)
        return down(g, products, bases, numbers, at, itself, tree.left(CODE), BASES, PLACE)
    else:
        if tree.operator(CODE) == "*":
            g = g * values(products, bases, numbers, at, itself, tree.left(CODE), BASES)
        return down(g, products, bases, numbers, at, itself, tree.right(CODE), BASES, PLACE)


@triton.jit
def by_product(h, u, tile, weight, LEAF: tl.constexpr):
    """Return what multiplies the rows of the other side, from h = dL/du.

    The gradient by x_i is sum_j c_ij y_j ("dot"), or sum_j c_ij (x_i - y_j). That of a distance of 0 is 0. Of a "norm",
    c_ij is the gradient by the distance, of a "cosine" that by the product of unit vectors.
    """
    if tree.function(LEAF) == "exp":
        weight *= LN2
    if tree.kind(LEAF) == "square":
        return h * (2.0 * weight)
    elif tree.kind(LEAF) == "root":
        return tl.where(tile > 0.0, h * weight * tl.rsqrt(tl.where(tile > 0.0, tile, 1.0)), tile)
    else:
        tl.static_assert(tree.kind(LEAF) == "dot" or tree.kind(LEAF) == "cosine" or tree.kind(LEAF) == "norm")
        return h * weight


@triton.jit
def by_weight(h, u, tile, weight, LEAF: tl.constexpr):
    """Return the sums over columns of the gradients by the weight, from h = dL/du, [R].

    u is the weight times its derivative, also where both are times log2(e). That of a "dot" is the product: its weight
    may be 0.
    """
    if tree.kind(LEAF) == "dot":
        return tl.sum(h * tile, 1)
    else:
        return tl.sum(h * u, 1) / weight


class Given(NamedTuple):
    """What the gradients of kernel values are made of; see `gradients_kernel`."""

    g: Any
    v: Any
    width: Any
    g_row: Any
    v_row: Any
    x_term: Any
    y_term: Any
    x_groups: Any
    y_groups: Any


@triton.jit
def of_no_parameters(ROWS: tl.constexpr, CODE: tl.constexpr):
    """Return the gradients of all parameters before the first tile, one [R] behind the other."""
    of_parameters = ()
    for _ in tl.static_range(2 * tree.leaves(CODE)):  # pyright: ignore[reportGeneralTypeIssues]
        of_parameters = of_parameters + (tl.zeros([ROWS], ACROSS_TILES),)  # noqa: RUF005
    return of_parameters


@triton.jit
def coefficients(
    given, of_parameters, products, bases, numbers, at, itself,
    CODE: tl.constexpr, BASES: tl.constexpr, OF: tl.constexpr, G_PRECISION: tl.constexpr, G_CHUNK: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr, EDGE: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Return the `by_product` of a tile, of all leaves of the base OF, and the gradients of their parameters so far."""
    of_k = of_values(
        given, products, bases, numbers, at, itself,
        CODE, BASES, G_PRECISION, G_CHUNK, WEIGHTED, APART, EDGE,
    )  # fmt: skip
    c, made = by_products(  # pyright: ignore[reportGeneralTypeIssues]
        of_k, of_parameters, products, bases, numbers, at, itself, CODE, BASES, OF, PARAMETERS
    )
    if tree.moves(BASES, OF) and SAME and EDGE:
        c = tl.where(itself, 0.0, c)
    return c, made


@triton.jit
def of_values(
    given, products, bases, numbers, at, itself,
    CODE: tl.constexpr, BASES: tl.constexpr, G_PRECISION: tl.constexpr, G_CHUNK: tl.constexpr,
    WEIGHTED: tl.constexpr, APART: tl.constexpr, EDGE: tl.constexpr,
):  # fmt: skip
    """Return the gradients of the kernel values of a tile, 0 for pairs that do not count."""
    if G_CHUNK <= 2:
        of_k = _outer(given, at, 0)
        if G_CHUNK == 2:
            of_k += _outer(given, at, 1)
    else:
        of_k = dot_of_rows(
            given.g, at.rows, given.g_row, at.rows_valid, given.v, at.columns, given.v_row, at.columns_valid,
            given.width, G_PRECISION, G_CHUNK,
        )  # fmt: skip
    if WEIGHTED:
        k = values(products, bases, numbers, at, itself, CODE, BASES)
        of_k *= weighed(k, given.x_term, given.y_term, at)
    if EDGE:
        of_k = tl.where(at.rows_valid[:, None] & at.columns_valid[None, :], of_k, 0.0)
    return hidden(of_k, 0.0, itself, given.x_groups, given.y_groups, at, APART)


@triton.jit
def _outer(given, at, COLUMN: tl.constexpr):
    """Return the products of one column of what kernel values are multiplied with."""
    of_row = tl.load(given.g + at.rows.to(INDEX) * given.g_row + COLUMN, mask=at.rows_valid, other=0.0)
    of_column = tl.load(given.v + at.columns.to(INDEX) * given.v_row + COLUMN, mask=at.columns_valid, other=0.0)
    return of_row[:, None] * of_column[None, :]


@triton.jit
def by_products(
    of_k, of_parameters, products, bases, numbers, at, itself,
    CODE: tl.constexpr, BASES: tl.constexpr, OF: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Return the `by_product` of a tile from the gradients of its kernel values, and those of parameters so far."""
    c = tl.zeros([at.rows.shape[0], at.columns.shape[0]], tl.float32)
    made = ()
    for number in tl.static_range(tree.leaves(CODE)):
        if tree.base_of(tree.leaf_at(CODE, number)) == OF:
            of_weight, of_shape, more = _leaf(
                of_k, products, bases, numbers, at, itself, CODE, BASES, number, PARAMETERS
            )  # pyright: ignore[reportGeneralTypeIssues]
            c += more
            made = made + (  # noqa: RUF005
                of_parameters[2 * number] + of_weight.to(ACROSS_TILES),
                of_parameters[2 * number + 1] + of_shape.to(ACROSS_TILES),
            )
        else:
            made = made + (of_parameters[2 * number], of_parameters[2 * number + 1])  # noqa: RUF005
    if tree.base_kind(BASES, OF) == "cosine":
        # What is multiplied with rows of y, not with their unit vectors; `kernels.across` does the rest.
        c *= tl.load(bases[OF].y_norms + at.columns.to(INDEX), mask=at.columns_valid, other=0.0)[None, :]
    return c, made


@triton.constexpr_function
def pulls(precision):
    """Return how coefficients are multiplied with rows, if they are float32: rows of half precision may be any."""
    return "tf32" if precision == "half" else precision


@triton.jit
def to_pull(c, y, PRECISION: tl.constexpr):
    """Return coefficients as they are multiplied with rows of the dtype that `y` points to, see `rows_to_pull`."""
    if INTERPRETED or y.dtype.element_ty != tl.bfloat16:
        return rounded_for(c, pulls(PRECISION))
    else:
        return c.to(tl.bfloat16)


@triton.jit
def rows_to_pull(base, columns, valid, first, WIDTH: tl.constexpr):
    """Return WIDTH columns of rows of y, as they are multiplied with coefficients."""
    y_tile = load_rows(base.y, columns, base.y_row, valid, first, base.width, WIDTH)
    if y_tile.dtype == tl.float16:
        # Gradients may be too small or too large for it.
        y_tile = y_tile.to(tl.float32)
    return y_tile


@triton.jit
def store_parameters(by_leaf, of_parameters, block, split, blocks, splits, CODE: tl.constexpr):
    """Store a program's part of the gradients of the parameters."""
    for number in tl.static_range(2 * tree.leaves(CODE)):  # pyright: ignore[reportGeneralTypeIssues]
        total = tl.sum(of_parameters[number], 0)
        tl.store(by_leaf + (number * splits + split) * blocks + block, total)


@triton.jit(do_not_specialize=["n", "m", "splits", "g_width"])
def gradients_kernel(
    bases, parameters,  # see `tile`
    g, v,  # [n, g_width], [m, g_width] float32: rows contiguous inside
    x_term, y_term,  # [n], [m] float32 or None: see `weighed`
    x_groups, y_groups,  # [n], [m] int64, or None
    out,  # [splits, n, width of the base OF] float32
    by_leaf,  # [leaves, 2, splits, blocks] float64, or None
    n, m, splits, g_width, g_row, v_row,
    CODE: tl.constexpr, BASES: tl.constexpr, OF: tl.constexpr, PRECISION: tl.constexpr, G_PRECISION: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, G_CHUNK: tl.constexpr,
):  # fmt: skip
    """Write the gradients of ROWS rows of the base OF, at most WIDTH columns wide, and the parts of its parameters.

    The gradient of a kernel value is <g_i, v_j>, times the value if it is WEIGHTED (of its exponential). The grid is
    one-dimensional: blocks of rows run fastest, then parts of y.
    """
    block, split, _, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0), bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
    )
    given = Given(g, v, g_width, g_row, v_row, x_term, y_term, x_groups, y_groups)
    MOVES: tl.constexpr = tree.moves(BASES, OF)  # pyright: ignore[reportAssignmentType]
    pulled = tl.zeros([ROWS, WIDTH], tl.float32)
    own = tl.zeros([ROWS], tl.float32)
    of_parameters = of_no_parameters(ROWS, CODE)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
            )
            itself = itself_of(at, EDGE, SAME)
            c, of_parameters = coefficients(  # pyright: ignore[reportGeneralTypeIssues]
                given, of_parameters, products, bases, numbers, at, itself,
                CODE, BASES, OF, G_PRECISION, G_CHUNK, WEIGHTED, SAME, APART, EDGE, by_leaf is not None,
            )  # fmt: skip
            y_tile = rows_to_pull(bases[OF], at.columns, at.columns_valid, 0, WIDTH)
            c = to_pull(c, bases[OF].y, PRECISION)
            pulled = dot(c, y_tile, pulled, pulls(PRECISION))
            if MOVES:
                # Of what is multiplied: x_i and y_j that are near leave little of each other.
                own += tl.sum(c.to(tl.float32), 1)

    width = bases[OF].width
    if MOVES:
        x_tile = load_rows(bases[OF].x, rows, bases[OF].x_row, rows_valid, 0, width, WIDTH)
        pulled = x_tile.to(tl.float32) * own[:, None] - pulled
    place = tl.arange(0, WIDTH)
    inside = rows_valid[:, None] & (place < width)[None, :]
    row = (split.to(INDEX) * n + rows) * width
    tl.store(out + row[:, None] + place[None, :], pulled, mask=inside)
    if by_leaf is not None:
        store_parameters(by_leaf, of_parameters, block, split, tl.cdiv(n, ROWS), splits, CODE)


@triton.jit
def _leaf(
    of_k, products, bases, numbers, at, itself,
    CODE: tl.constexpr, BASES: tl.constexpr, NUMBER: tl.constexpr, PARAMETERS: tl.constexpr,
):  # fmt: skip
    """Return the sums over columns of the gradients by weight and shape of a leaf, [R], and its `by_product`."""
    LEAF: tl.constexpr = tree.leaf_at(CODE, NUMBER)
    FUNCTION: tl.constexpr = tree.function(LEAF)
    weight, shape = numbers[2 * NUMBER], numbers[2 * NUMBER + 1]
    of_value = down(of_k, products, bases, numbers, at, itself, CODE, BASES, NUMBER)
    u = argument(products, bases, numbers, at, itself, LEAF, BASES)
    of_weight = tl.zeros([at.rows.shape[0]], tl.float32)
    of_shape = of_weight
    h = of_value
    if FUNCTION != "identity":
        k = value(u, shape, FUNCTION, tree.degree(LEAF))
        h = of_value * slope(u, k, shape, FUNCTION, tree.degree(LEAF))
        if PARAMETERS and has_shape(FUNCTION):
            of_shape = tl.sum(of_value * by_shape(u, k, shape, FUNCTION, tree.degree(LEAF)), 1)
    if PARAMETERS:
        of_weight = by_weight(h, u, products[tree.base_of(LEAF)], weight, LEAF)
    return of_weight, of_shape, by_product(h, u, products[tree.base_of(LEAF)], weight, LEAF)
