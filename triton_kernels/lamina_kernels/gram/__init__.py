"""Products with the matrix of a kernel function over all pairs of rows, never built."""

from __future__ import annotations

from lamina_kernels.gram.api import LinearProduct, linear_product

__all__ = ["LinearProduct", "linear_product"]
