"""Attention that also says what its heads do: statistics of the weights and their gradients, never the pattern."""

from __future__ import annotations

from lamina_kernels.attention.api import Attention, attend
from lamina_kernels.attention.biases import ALiBi, KeyBias, RelativeBias
from lamina_kernels.attention.diverging import Divergence, divergence
from lamina_kernels.attention.masking import block_mask, documents
from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.merging import gather_parts, merge
from lamina_kernels.attention.normalizers import Sigmoid, Softmax
from lamina_kernels.attention.scores import Cosine, Dot, SquaredDistance
from lamina_kernels.attention.statistics import Distance, Statistics

__all__ = [
    "ALiBi",
    "Attention",
    "BlockMask",
    "Cosine",
    "Distance",
    "Divergence",
    "Dot",
    "KeyBias",
    "RelativeBias",
    "Sigmoid",
    "Softmax",
    "SquaredDistance",
    "Statistics",
    "attend",
    "block_mask",
    "divergence",
    "documents",
    "gather_parts",
    "merge",
]
