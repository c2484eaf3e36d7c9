"""A product of two tiles in Triton, plainly and as the kernels write it."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.tiles.dot import dot


@triton.jit
def product_kernel(x, y, out, N: tl.constexpr, RAW: tl.constexpr):
    """Write the product of two matrices [N, N]."""
    place = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    a, b = tl.load(x + place), tl.load(y + place)
    if RAW:
        c = tl.dot(a, b)
    else:
        c = dot(a, b, tl.zeros([N, N], tl.float32), "ieee")
    tl.store(out + place, c)
