"""Products and reductions over all pairs of rows that never build the matrix of pairs.

Every op stands in a family (`lamina_kernels.gram`), has up to three forms with one signature
(`reference`, `blocked`, `triton`) and returns the name of the form that ran. The package needs torch and
nothing of Lamina; Triton is imported where a Triton kernel is launched.
"""

from __future__ import annotations

from lamina_kernels import attention, gram, sparse

__all__ = ["attention", "gram", "sparse"]
