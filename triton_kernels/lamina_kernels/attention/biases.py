"""What is added to scores and is never N x N."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class ALiBi:
    """A penalty that grows with distance: -slopes_h |i - j|, i and j counted as `align` says.

    Attributes:
        slopes: [H], differentiable.

    Example:
        >>> import torch
        >>> ALiBi(2.0 ** -torch.arange(1.0, 9.0)).slopes[:3].tolist()
        [0.5, 0.25, 0.125]
    """

    slopes: torch.Tensor


@dataclass(frozen=True)
class RelativeBias:
    """A number for each distance: table[h, R + clip(i - j, -R, R)], i and j counted as `align` says.

    Attributes:
        table: [H, 2 R + 1], differentiable.

    Example:
        >>> import torch
        >>> RelativeBias(torch.zeros(4, 129)).table.shape  # distances up to 64
        torch.Size([4, 129])
    """

    table: torch.Tensor


@dataclass(frozen=True)
class KeyBias:
    """A number for each key, the same for all queries; -inf hides a key, as padding is hidden.

    Attributes:
        values: [Nk], [H, Nk] or [B, H, Nk], where H and B may be 1; differentiable.

    Example:
        >>> import torch
        >>> padded = torch.tensor([[False, False, True], [False, True, True]])
        >>> KeyBias(torch.zeros(2, 3).masked_fill(padded, -torch.inf)[:, None]).values.shape
        torch.Size([2, 1, 3])
    """

    values: torch.Tensor


Bias = ALiBi | RelativeBias | KeyBias
