"""A kernel function as a user writes one, in Triton and in torch: that of Tanimoto."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lamina_kernels.gram import Pointwise


def tanimoto(dot: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return <x, y> / |x|² + |y|² - <x, y>."""
    return dot / (x + y - dot)


@triton.jit
def tanimoto_tile(dot: tl.tensor, x: tl.tensor, y: tl.tensor):
    """Return the same of tiles."""
    return dot / (x + y - dot)


TANIMOTO = Pointwise(tanimoto, tanimoto_tile)
