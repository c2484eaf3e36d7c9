"""Units whose gate decides whether, and whose magnitude decides how much."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lamina_kernels.sparse.encoding.problem import Above, Kept, Problem, Rule
from lamina_kernels.sparse.encoding.selection import Selection, of_entries, per_unit


@dataclass(frozen=True, eq=False)
class Gated(Selection):
    """Keep the units whose gate w x + b is positive, with the value ReLU(e^r w x + c): weights are shared, biases not.

    The gate gets no gradient from the values, as a step has none: it learns from `Encoded.pre`, the gates of the same
    entries, by the L1 norm and the reconstruction of the auxiliary loss.

    Attributes:
        log_scale: [M], r, differentiable.
        bias: [M], c, differentiable; the bias of `encode` is b.

    Source:
        Rajamanoharan et al., Improving dictionary learning with gated sparse autoencoders, 2024.

    Example:
        >>> import torch
        >>> from lamina_kernels.sparse import encode
        >>> select = Gated(torch.zeros(2), torch.tensor([5.0, 0.0]))
        >>> encoded = encode(torch.tensor([[3.0, -1.0]]), torch.eye(2), torch.tensor([-1.0, 0.0]), select=select)
        >>> encoded.codes.dense().tolist(), encoded.pre.tolist()
        ([[8.0, 0.0]], [2.0])
    """

    log_scale: Tensor
    bias: Tensor

    def rule(self, p: Problem) -> Rule:
        """Return open gates."""
        per_unit("Gated", "log_scale", self.log_scale, p)
        per_unit("Gated", "bias", self.bias, p)
        return Above()

    def values(self, p: Problem, kept: Kept) -> Tensor:
        """Return magnitudes."""
        scale = per_unit("Gated", "log_scale", self.log_scale, p).exp()
        shift = per_unit("Gated", "bias", self.bias, p)
        products = kept.pre if p.bias is None else kept.pre - of_entries(p.bias.to(p.dtype), kept.ids)
        return (of_entries(scale, kept.ids) * products + of_entries(shift, kept.ids)).relu()
