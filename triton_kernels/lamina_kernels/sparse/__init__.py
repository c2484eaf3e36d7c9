"""Activations of which few are kept: encoders that store nothing else, and what is computed from their codes alone."""

from __future__ import annotations

from lamina_kernels.sparse.codebooks.learning import Codebook, CodeStatistics, code_statistics
from lamina_kernels.sparse.codebooks.quantize import Quantized, ResidualQuantized, quantize, residual_quantize
from lamina_kernels.sparse.codebooks.scalars import (
    FiniteScalars,
    Scalars,
    finite_scalars,
    finite_scalars_of,
    nearest_scalars,
)
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding.api import decode
from lamina_kernels.sparse.encoding.api import Encoded, UnitStatistics, encode
from lamina_kernels.sparse.encoding.batch_topk import BatchTopK, RunningThreshold
from lamina_kernels.sparse.encoding.gated import Gated
from lamina_kernels.sparse.encoding.hard_ash import HardASH
from lamina_kernels.sparse.encoding.jump_relu import JumpReLU
from lamina_kernels.sparse.encoding.k_winners import KWinners
from lamina_kernels.sparse.encoding.relu import ReLU
from lamina_kernels.sparse.encoding.topk import GroupTopK, MassShare, TopK
from lamina_kernels.sparse.interchange import from_dense, from_scipy, from_topk, from_torch, to_scipy, to_torch
from lamina_kernels.sparse.losses.api import Reconstruction, auxiliary_loss, reconstruction
from lamina_kernels.sparse.stacking import hstack
from lamina_kernels.sparse.statistics.activity import UnitActivity, UnitMoments
from lamina_kernels.sparse.statistics.pairs import Coactivated, Coactivation
from lamina_kernels.sparse.statistics.quantiles import QuantileSketch
from lamina_kernels.sparse.statistics.top_rows import MostActive, TopRows

__all__ = [
    "BatchTopK",
    "Coactivated",
    "Coactivation",
    "CodeStatistics",
    "Codebook",
    "Codes",
    "Encoded",
    "FiniteScalars",
    "Gated",
    "GroupTopK",
    "HardASH",
    "JumpReLU",
    "KWinners",
    "MassShare",
    "MostActive",
    "QuantileSketch",
    "Quantized",
    "ReLU",
    "Reconstruction",
    "ResidualQuantized",
    "RunningThreshold",
    "Scalars",
    "TopK",
    "TopRows",
    "UnitActivity",
    "UnitMoments",
    "UnitStatistics",
    "auxiliary_loss",
    "code_statistics",
    "decode",
    "encode",
    "finite_scalars",
    "finite_scalars_of",
    "from_dense",
    "from_scipy",
    "from_topk",
    "from_torch",
    "hstack",
    "nearest_scalars",
    "quantize",
    "reconstruction",
    "residual_quantize",
    "to_scipy",
    "to_torch",
]
