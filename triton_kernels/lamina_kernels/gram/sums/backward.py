"""The Triton kernel of the gradients of sums by the rows of one side, and by the kernel's parameters.

With x and y in each other's place it has the gradients by the rows of y: every base is symmetric.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.sums.weights import hidden, weighed
from lamina_kernels.gram.tile import argument, values
from lamina_kernels.gram.tile_functions import by_shape, has_shape, slope, value
from lamina_kernels.gram.walk import turns
from lamina_kernels.tiles.dot import dot, dot_of_rows, rounded_for, weights_as
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

    The gradient by x_i is sum_j c_ij y_j ("dot"), or sum_j c_ij (x_i - y_j). That of a distance of 0 is 0.
    """
    if tree.function(LEAF) == "exp":
        weight *= LN2
    if tree.kind(LEAF) == "square":
        return h * (2.0 * weight)
    elif tree.kind(LEAF) == "root":
        return tl.where(tile > 0.0, h * weight * tl.rsqrt(tl.where(tile > 0.0, tile, 1.0)), tile)
    else:
        tl.static_assert(tree.kind(LEAF) == "dot")
        return h * weight


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
    """Write WIDTH columns of the gradients of ROWS rows of the base OF, and the parts of its leaves' parameters.

    The gradient of a kernel value is <g_i, v_j>, times the value if it is WEIGHTED (of its exponential). The grid is
    one-dimensional: blocks of rows run fastest, then parts of y, then blocks of columns.
    """
    block, split, part, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
    )
    first = part * WIDTH
    MOVES: tl.constexpr = tree.base_kind(BASES, OF) != "dot"
    pulled = tl.zeros([ROWS, WIDTH], tl.float32)
    own = tl.zeros([ROWS], tl.float32)
    of_parameters = ()
    for _ in tl.static_range(2 * tree.leaves(CODE)):
        of_parameters = of_parameters + (tl.zeros([ROWS], ACROSS_TILES),)  # noqa: RUF005
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, itself, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
            )
            columns, columns_valid = at.columns, at.columns_valid
            if G_CHUNK == 1:
                of_row = tl.load(g + rows.to(INDEX) * g_row, mask=rows_valid, other=0.0)
                of_column = tl.load(v + columns.to(INDEX) * v_row, mask=columns_valid, other=0.0)
                of_k = of_row[:, None] * of_column[None, :]
            else:
                of_k = dot_of_rows(
                    g, rows, g_row, rows_valid, v, columns, v_row, columns_valid, g_width, G_PRECISION, G_CHUNK
                )
            if WEIGHTED:
                k = values(products, bases, numbers, at, itself, CODE, BASES)
                of_k *= weighed(k, x_term, y_term, at)
            if EDGE:
                of_k = tl.where(rows_valid[:, None] & columns_valid[None, :], of_k, 0.0)
            of_k = hidden(of_k, 0.0, itself, x_groups, y_groups, at, APART)

            c = tl.zeros([ROWS, COLUMNS], tl.float32)
            made = ()
            for number in tl.static_range(tree.leaves(CODE)):
                if tree.base_of(tree.leaf_at(CODE, number)) == OF:
                    of_weight, of_shape, more = _leaf(
                        of_k, products, bases, numbers, at, itself, CODE, BASES, number, by_leaf is not None
                    )  # pyright: ignore[reportGeneralTypeIssues]
                    c += more
                    made = made + (  # noqa: RUF005
                        of_parameters[2 * number] + of_weight.to(ACROSS_TILES),
                        of_parameters[2 * number + 1] + of_shape.to(ACROSS_TILES),
                    )
                else:
                    made = made + (of_parameters[2 * number], of_parameters[2 * number + 1])  # noqa: RUF005
            of_parameters = made

            if MOVES and SAME and EDGE:
                c = tl.where(itself, 0.0, c)
            y_tile = load_rows(bases[OF].y, columns, bases[OF].y_row, columns_valid, first, bases[OF].width, WIDTH)
            if y_tile.dtype == tl.float16:
                # Gradients may be too small or too large for it.
                y_tile = y_tile.to(tl.float32)
            c = rounded_for(weights_as(c, y_tile), "tf32" if PRECISION == "half" else PRECISION)
            pulled = dot(c, y_tile, pulled, "tf32" if PRECISION == "half" else PRECISION)
            if MOVES:
                # Of what is multiplied: x_i and y_j that are near leave little of each other.
                own += tl.sum(c.to(tl.float32), 1)

    if MOVES:
        x_tile = load_rows(bases[OF].x, rows, bases[OF].x_row, rows_valid, first, bases[OF].width, WIDTH)
        pulled = x_tile.to(tl.float32) * own[:, None] - pulled
    width = bases[OF].width
    place = first + tl.arange(0, WIDTH)
    inside = rows_valid[:, None] & (place < width)[None, :]
    row = (split.to(INDEX) * n + rows) * width
    tl.store(out + row[:, None] + place[None, :], pulled, mask=inside)
    if by_leaf is not None:  # noqa: SIM102
        if first == 0:
            for number in tl.static_range(2 * tree.leaves(CODE)):
                total = tl.sum(of_parameters[number], 0)
                tl.store(by_leaf + (number * splits + split) * tl.cdiv(n, ROWS) + block, total)


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
        # u is the weight times its derivative, also where both are times log2(e).
        of_weight = tl.sum(h * u, 1) / weight
    return of_weight, of_shape, by_product(h, u, products[tree.base_of(LEAF)], weight, LEAF)
