"""Units with a threshold that is learned through a kernel, because a step has no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Above, Kept, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection, of_entries, per_unit

if TYPE_CHECKING:
    from lamina_kernels.sparse.encoding.api import Encoded


@dataclass(frozen=True, eq=False)
class JumpReLU(Selection):
    """Keep the pre-activations above the threshold of their unit, as they are.

    The value z H(z - t) of a unit has the gradient H(z - t) by z, and by t, where a step has none, that of a step that
    is as wide as the kernel: -t / w for |z - t| < w / 2. So while the threshold takes gradients, units up to w / 2
    below it stand in the codes too, with the value 0.

    Attributes:
        threshold: A number, or a tensor of one or of [M], differentiable.
        bandwidth: The width w of the kernel, positive.

    Source:
        Rajamanoharan et al., Jumping ahead: improving reconstruction fidelity with JumpReLU sparse autoencoders, 2024.

    Example:
        >>> import torch
        >>> from lamina_kernels.sparse import encode
        >>> x, threshold = torch.tensor([[0.9], [1.02]]), torch.tensor([1.0], requires_grad=True)
        >>> select = JumpReLU(threshold, bandwidth=0.1)
        >>> encoded = encode(x, torch.eye(1), select=select)
        >>> encoded.codes.dense().tolist()
        [[0.0], [1.0199999809265137]]
        >>> select.l0(encoded).sum().backward()
        >>> threshold.grad.round().tolist()
        [-10.0]
    """

    threshold: float | Tensor
    bandwidth: float = 0.001

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise ValueError(f"JumpReLU: bandwidth is {self.bandwidth}, expected a positive number")
        if not isinstance(self.threshold, Tensor) and self.threshold != self.threshold:
            raise ValueError("JumpReLU: threshold is NaN")

    def rule(self, p: Problem) -> Rule:
        """Return what lies above the thresholds, or half a kernel below them."""
        threshold = self._of_units(p)
        return Above(threshold.detach() - (self.bandwidth / 2 if _learned(threshold) else 0))

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return pre-activations above the threshold, and zeros."""
        return _Jump.apply(kept.pre, of_entries(self._of_units(p), kept.ids), self.bandwidth)

    def l0(self, encoded: Encoded) -> Tensor:
        """Return how many units of each row are above their thresholds, [n]; the gradient by one is -1 / w inside w."""
        codes = encoded.codes
        threshold = torch.as_tensor(self.threshold, dtype=encoded.pre.dtype, device=encoded.pre.device)
        steps = _Step.apply(encoded.pre, of_entries(threshold.expand(codes.width), codes.ids), self.bandwidth)
        return steps.new_zeros(len(codes)).index_add(0, codes.row_ids(), steps)

    def _of_units(self, p: Problem) -> Tensor:
        threshold = self.threshold
        if not isinstance(threshold, Tensor):
            threshold = torch.tensor(float(threshold), dtype=p.dtype, device=p.x.device)
        return per_unit("JumpReLU", "threshold", threshold, p, scalar=True)


class _Jump(torch.autograd.Function):
    """z H(z - t), with the gradient of a kernel by t."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, t)
        ctx.width = width
        # NaN stays.
        return z.masked_fill(z <= t, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (z, t) = gradients, ctx.saved_tensors
        near = (z - t).abs() < ctx.width / 2
        return g * (z > t), -g * t / ctx.width * near, None


class _Step(torch.autograd.Function):
    """H(z - t), with the gradient of a kernel by t."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, t)
        ctx.width = width
        return (z > t).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,), (z, t) = gradients, ctx.saved_tensors
        return None, -g / ctx.width * ((z - t).abs() < ctx.width / 2), None


def _learned(threshold: Tensor) -> bool:
    return threshold.requires_grad and torch.is_grad_enabled()
