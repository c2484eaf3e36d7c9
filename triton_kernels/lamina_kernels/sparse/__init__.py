"""Activations of which few are kept: codes of the kept entries, and what is computed from them alone."""

from __future__ import annotations

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding.api import decode
from lamina_kernels.sparse.interchange import from_dense, from_scipy, from_topk, from_torch, to_scipy, to_torch

__all__ = ["Codes", "decode", "from_dense", "from_scipy", "from_topk", "from_torch", "to_scipy", "to_torch"]
