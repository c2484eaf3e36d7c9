"""Kernel functions of a tile of dot products."""

from __future__ import annotations

import triton
import triton.language as tl

# The bias of a row beyond the edge of a tile: its score is 0.
NO_ROW = tl.constexpr(float("-inf"))

# A minimum that dropped NaN would give a broken row the score 1.
KEEP_NAN = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def score(products, x_bias, y_bias, scale, KERNEL: tl.constexpr):
    """Return k(x_i, y_j) from <x_i, y_j>, [R, C].

    "linear" is the product itself. "rbf" is 2^(scale <x_i, y_j> + x_bias_i + y_bias_j), at most 1: with
    s = log2(e) / (2 bandwidth²), scale is 2s and a bias is -s|x|². A row with the bias NO_ROW has the score 0.

    Args:
        products: [R, C] float32.
        x_bias: [R] float32; unused if KERNEL is "linear".
        y_bias: [C] float32; unused if KERNEL is "linear".
        scale: A number; unused if KERNEL is "linear".
        KERNEL: "linear" or "rbf".
    """
    if KERNEL == "rbf":
        exponent = products * scale + (x_bias[:, None] + y_bias[None, :])
        return tl.exp2(tl.minimum(exponent, 0.0, propagate_nan=KEEP_NAN))
    else:
        return products
