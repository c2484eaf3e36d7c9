"""Sums over the matrix of a kernel function of all pairs of rows, never built."""

from __future__ import annotations

from lamina_kernels.gram.hsic.api import HsicSums, hsic_sums
from lamina_kernels.gram.kernels import RBF, Distance, Linear
from lamina_kernels.gram.product.api import LinearProduct, linear_product

__all__ = ["RBF", "Distance", "HsicSums", "Linear", "LinearProduct", "hsic_sums", "linear_product"]
