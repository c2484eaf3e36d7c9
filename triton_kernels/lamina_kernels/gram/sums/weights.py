"""Triton functions that make weights of a tile of kernel values, and leave pairs out."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.gram.tile_functions import exp
from lamina_kernels.tiles.load import INDEX


@triton.jit
def weighed(k, x_term, y_term, at):
    """Return exp(k + x_term_i + y_term_j); a term that is None is 0."""
    if x_term is not None:
        k += tl.load(x_term + at.rows.to(INDEX), mask=at.rows_valid, other=0.0)[:, None]
    if y_term is not None:
        k += tl.load(y_term + at.columns.to(INDEX), mask=at.columns_valid, other=0.0)[None, :]
    return exp(k)


@triton.jit
def hidden(tile, instead, itself, x_groups, y_groups, at, APART: tl.constexpr):
    """Return a tile with another number for pairs that do not count."""
    if APART and itself is not None:
        tile = tl.where(itself, instead, tile)
    if x_groups is not None:
        of_x = tl.load(x_groups + at.rows.to(INDEX), mask=at.rows_valid, other=0)
        of_y = tl.load(y_groups + at.columns.to(INDEX), mask=at.columns_valid, other=0)
        tile = tl.where(of_x[:, None] == of_y[None, :], instead, tile)
    return tile
