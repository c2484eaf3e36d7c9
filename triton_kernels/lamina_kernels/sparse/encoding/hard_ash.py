"""Units that stand out among those of their row, behind a gate that opens gradually."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import hardsigmoid

from lamina_kernels.sparse.encoding.problem import Above, Kept, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection

_SHUT = 3.0
"""Below minus this a hard sigmoid is 0."""


@dataclass(frozen=True)
class HardASH(Selection):
    """Keep z g with the gate g = hard_sigmoid(alpha (z - mu - q s)), where that is not 0.

    mu and s are mean and standard deviation of the row's M pre-activations, q is the normal quantile above which a
    share of them lies, and hard_sigmoid(u) is u / 6 + 1 / 2 within 0 and 1. The gate begins to open at mu + q s - 3 /
    alpha, so that of normal pre-activations the normal tail above that is kept: a little more than the share.

    Mean and deviation come from the d x d moments of the weight: they cost M d² operations and a copy of the weight,
    and their gradients reach all of the weight. They are never taken of M numbers a row.

    Attributes:
        share: The share above the middle of the gate, between 0 and 1.
        alpha: How steep the gate is, positive.

    Source:
        Lee, Sparsity and the right optimizer make a continual learner (Hard ASH), after Adaptive SwisH.

    Example:
        >>> HardASH(0.05)
        HardASH(share=0.05, alpha=10.0)
    """

    share: float
    alpha: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"HardASH: share is {self.share}, expected a number between 0 and 1")
        if not self.alpha > 0:
            raise ValueError(f"HardASH: alpha is {self.alpha}, expected a positive number")

    def rule(self, p: Problem) -> Rule:
        """Return what lies above the gate's zero point."""
        with torch.no_grad():
            mean, deviation = moments(p)
            middle = self._middle(mean, deviation)
            # Of a row of zeros nothing is kept.
            nothing = (mean == 0) & (deviation == 0)
            return Above(rows=(middle - _SHUT / self.alpha).masked_fill(nothing, torch.inf))

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations times their gates."""
        assert kept.indptr is not None
        middle = self._middle(*moments(p))
        rows = torch.arange(p.n, device=kept.ids.device).repeat_interleave(
            kept.indptr.diff(), output_size=kept.ids.numel()
        )
        return kept.pre * hardsigmoid(self.alpha * (kept.pre - middle.index_select(0, rows)))

    def _middle(self, mean: Tensor, deviation: Tensor) -> Tensor:
        return mean + NormalDist().inv_cdf(1 - self.share) * deviation


def moments(p: Problem) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the pre-activations of each row, [n], without these.

    They are moments of the affine functions x -> w x + b of all units: the mean is that of the mean unit, the variance
    a quadratic form of [x, 1] in the covariance of [w, b]. Differentiable; the deviation has the gradient 0 where it is
    0.
    """
    bias = p.weight.new_zeros(p.m) if p.bias is None else p.bias
    units = torch.cat([p.weight, bias[:, None]], 1).to(p.dtype)
    middle = units.mean(0)
    units = units - middle
    rows = torch.cat([p.x, p.x.new_ones(p.n, 1)], 1).to(p.dtype)
    variance = (rows @ (units.T @ units) * rows).sum(1) / max(1, p.m)
    zero = variance <= 0
    return rows @ middle, variance.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
