"""Activations of which few are kept: encoders that store nothing else, and what is computed from their codes alone."""

from __future__ import annotations

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

__all__ = [
    "BatchTopK",
    "Codes",
    "Encoded",
    "Gated",
    "GroupTopK",
    "HardASH",
    "JumpReLU",
    "KWinners",
    "MassShare",
    "ReLU",
    "RunningThreshold",
    "TopK",
    "UnitStatistics",
    "decode",
    "encode",
    "from_dense",
    "from_scipy",
    "from_topk",
    "from_torch",
    "to_scipy",
    "to_torch",
]
