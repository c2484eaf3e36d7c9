"""What turns the scores of a query into weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Softmax:
    """Weights that sum to 1: p = exp(s) / sum exp(s).

    Attributes:
        sink: [H] or one number in a tensor, differentiable: the score of one more key, which has no value.
            Its weight is missing from the sum of the others. None for none.
        softcap: Scores become softcap tanh(s / softcap), before a bias by distance is added. None for none.

    Raises:
        ValueError: `softcap` is not a positive number.

    Example:
        >>> Softmax(softcap=30.0)
        Softmax(sink=None, softcap=30.0)
    """

    sink: torch.Tensor | None = None
    softcap: float | None = None

    def __post_init__(self) -> None:
        if self.softcap is not None and not 0 < self.softcap < float("inf"):
            raise ValueError(f"Softmax: softcap is {self.softcap!r}, expected a positive number or None")


@dataclass(frozen=True)
class Sigmoid:
    """Weights by themselves: p = 1 / (1 + exp(-s - bias)).

    Attributes:
        bias: A number, or a tensor of one or of H (one a query head), differentiable. -log(n) makes the weights of n
            equal scores of 0 sum to about 1.

    Example:
        >>> Sigmoid(bias=-4.0)
        Sigmoid(bias=-4.0)
    """

    bias: float | torch.Tensor = 0.0


Normalizer = Softmax | Sigmoid
