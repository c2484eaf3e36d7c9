"""Sums over a kernel function of all pairs of rows, and selections by their distances; no matrix is built."""

from __future__ import annotations

from lamina_kernels.gram.contrastive import pairwise_loss
from lamina_kernels.gram.counting.api import count, distance_histogram
from lamina_kernels.gram.dependence.api import (
    CkaMatrix,
    cka_matrix,
    distance_correlation,
    distance_covariance,
    hsic,
)
from lamina_kernels.gram.differences import difference_moments
from lamina_kernels.gram.discrepancy import Discrepancy, mmd
from lamina_kernels.gram.kernels import ArcCosine, Cosine, Kernel, Linear, Polynomial, Product, Sum
from lamina_kernels.gram.paired.api import HsicSums, hsic_sums
from lamina_kernels.gram.pointwise import Pointwise
from lamina_kernels.gram.prototypes import Harmonic, harmonic
from lamina_kernels.gram.radial import (
    RBF,
    Distance,
    InverseMultiquadric,
    Laplace,
    Matern,
    RationalQuadratic,
    SquaredDistance,
)
from lamina_kernels.gram.selection.api import Assigned, Nearest, argmin, nearest
from lamina_kernels.gram.sums.api import SoftmaxProduct, logsumexp, product, row_sums, softmax_product

__all__ = [
    "RBF",
    "ArcCosine",
    "Assigned",
    "CkaMatrix",
    "Cosine",
    "Discrepancy",
    "Distance",
    "Harmonic",
    "HsicSums",
    "InverseMultiquadric",
    "Kernel",
    "Laplace",
    "Linear",
    "Matern",
    "Nearest",
    "Pointwise",
    "Polynomial",
    "Product",
    "RationalQuadratic",
    "SoftmaxProduct",
    "SquaredDistance",
    "Sum",
    "argmin",
    "cka_matrix",
    "count",
    "difference_moments",
    "distance_correlation",
    "distance_covariance",
    "distance_histogram",
    "harmonic",
    "hsic",
    "hsic_sums",
    "logsumexp",
    "mmd",
    "nearest",
    "pairwise_loss",
    "product",
    "row_sums",
    "softmax_product",
]
