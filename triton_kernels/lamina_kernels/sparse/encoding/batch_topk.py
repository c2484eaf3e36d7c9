"""The largest of all rows together, and the threshold that stands for them one row at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.encoding.jump_relu import JumpReLU
from lamina_kernels.sparse.encoding.problem import Kept, Problem, Rule, Together
from lamina_kernels.sparse.encoding.selection import Selection, demand_units, keep_whole, rectified


@dataclass(frozen=True)
class BatchTopK(Selection):
    """Keep the k n largest pre-activations of all n rows, exactly; of equal ones the first, rows before units.

    Rows keep different numbers of units, k in the mean. What a row keeps depends on the others: use
    `RunningThreshold` where that must not be.

    Attributes:
        k: How many in the mean, from 1 to M.
        relu: As of `TopK`.

    Source:
        Bussmann, Leask and Nanda, BatchTopK sparse autoencoders, 2024.

    Example:
        >>> BatchTopK(32)
        BatchTopK(k=32, relu=True)
    """

    k: int
    relu: bool = True

    def __post_init__(self) -> None:
        keep_whole(self, "k")

    def rule(self, p: Problem) -> Rule:
        """Return the largest of all rows."""
        demand_units("BatchTopK", self.k, p.m)
        return Together(self.k)

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations after the ReLU."""
        return rectified(kept.pre, self.relu)


@dataclass(frozen=True)
class RunningThreshold:
    """The exponential average of the smallest positive value of batches: what BatchTopK keeps, one row at a time.

    Attributes:
        value: The average; NaN before the first batch.
        beta: The weight of what came before.

    Example:
        >>> import torch
        >>> batch = Codes(torch.tensor([[0.5, 2.0], [0.0, 3.0]]), torch.tensor([[0, 1], [0, 1]]), 2)
        >>> threshold = RunningThreshold(beta=0.9).updated(batch)
        >>> threshold.value, threshold.updated(batch).value
        (0.5, 0.5)
    """

    value: float = float("nan")
    beta: float = 0.999

    def updated(self, codes: Codes) -> RunningThreshold:
        """Return the average with another batch's codes, if any is positive."""
        values = codes.values.detach().double()
        if not bool((values > 0).any()):
            return self
        least = float(values.masked_fill(~(values > 0), torch.inf).amin())
        return replace(
            self, value=least if self.value != self.value else self.beta * self.value + (1 - self.beta) * least
        )

    def select(self) -> JumpReLU:
        """Return the selection of what is above the average.

        Raises:
            ValueError: There was no batch.
        """
        if self.value != self.value:
            raise ValueError("RunningThreshold: no batch was seen")
        return JumpReLU(self.value)
