"""What is positive."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Above, Kept, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection


@dataclass(frozen=True)
class ReLU(Selection):
    """Keep the positive pre-activations; `Encoded.l1` and `Encoded.l0` are what is penalized and reported.

    Memory grows with the number of these: at a density above a tenth a dense layer serves better.

    Example:
        >>> import torch
        >>> from lamina_kernels.sparse import encode
        >>> weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 3.0]])
        >>> encoded = encode(torch.tensor([[1.0, 2.0]]), weight, select=ReLU())
        >>> encoded.codes.ids.tolist(), encoded.l0().tolist(), encoded.l1().tolist()
        ([0, 2], [2], [7.0])
    """

    def rule(self, p: Problem) -> Rule:
        """Return what is positive."""
        return Above()

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations."""
        return kept.pre
