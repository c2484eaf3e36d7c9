"""The Triton kernel of the gradients of sums by the kernel's parameters, where nobody wants those by rows."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram import tree
from lamina_kernels.gram.sums.backward import Given, by_products, of_no_parameters, of_values, store_parameters
from lamina_kernels.gram.sums.program import block_of_rows, tile_of
from lamina_kernels.gram.tile import itself_of
from lamina_kernels.gram.walk import turns


@triton.jit(do_not_specialize=["n", "m", "splits", "g_width"])
def parameters_kernel(
    bases, parameters, g, v, x_term, y_term, x_groups, y_groups,  # see `gradients_kernel`
    by_leaf,  # [leaves, 2, splits, blocks] float64
    n, m, splits, g_width, g_row, v_row,
    CODE: tl.constexpr, BASES: tl.constexpr, PRECISION: tl.constexpr, G_PRECISION: tl.constexpr,
    WEIGHTED: tl.constexpr, SAME: tl.constexpr, APART: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, G_CHUNK: tl.constexpr,
):  # fmt: skip
    """Write the parts of the gradients that ROWS rows have, of the leaves of all bases; see `gradients_kernel`.

    Nothing is multiplied with rows: any width takes the same tiles.
    """
    block, split, _, rows, rows_valid, numbers, left, walk = block_of_rows(  # pyright: ignore[reportGeneralTypeIssues]
        tl.program_id(0), bases, parameters, n, m, splits, CODE, BASES, SAME, ROWS, COLUMNS
    )
    given = Given(g, v, g_width, g_row, v_row, x_term, y_term, x_groups, y_groups)
    of_parameters = of_no_parameters(ROWS, CODE)
    for EDGE in tl.static_range(0, 2):
        for turn in range(turns(walk, EDGE)):
            at, products = tile_of(  # pyright: ignore[reportGeneralTypeIssues]
                bases, left, walk, turn, rows, rows_valid, m, EDGE, SAME, BASES, PRECISION, COLUMNS
            )
            itself = itself_of(at, EDGE, SAME)
            of_k = of_values(
                given, products, bases, numbers, at, itself,
                CODE, BASES, G_PRECISION, G_CHUNK, WEIGHTED, APART, EDGE,
            )  # fmt: skip
            for OF in tl.static_range(tree.bases(BASES)):  # pyright: ignore[reportGeneralTypeIssues]
                of_parameters = by_products(
                    of_k, of_parameters, products, bases, numbers, at, itself, CODE, BASES, OF, True
                )[1]  # pyright: ignore[reportIndexIssue]
    store_parameters(by_leaf, of_parameters, block, split, tl.cdiv(n, ROWS), splits, CODE)
