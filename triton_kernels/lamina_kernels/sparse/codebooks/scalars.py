"""Quantisers of single numbers: the nearest of learned scalars, and a grid of finitely many levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from lamina_kernels import checks
from lamina_kernels.sparse.codebooks.through import through


class Scalars(NamedTuple):
    """What `nearest_scalars` returns.

    Attributes:
        output: [n, d], the nearest scalars, with a gradient by x alone, that by the output.
        chosen: [n, d], the same, with a gradient by the scalars alone.
        indices: [n, d] int64, which of them; -1 for NaN.
    """

    output: torch.Tensor
    chosen: torch.Tensor
    indices: torch.Tensor


class FiniteScalars(NamedTuple):
    """What `finite_scalars` returns.

    Attributes:
        output: [n, d], numbers from -1 to 1, with the gradient of the tanh before rounding.
        indices: [n] int64, the place of each row among all combinations of levels; -1 for a row with NaN.
    """

    output: torch.Tensor
    indices: torch.Tensor


def nearest_scalars(x: torch.Tensor, scalars: torch.Tensor) -> Scalars:
    """Replace each number by the nearest of its dimension's scalars.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        scalars: [d, V], V values for each dimension, in any order, in the same dtype.

    Returns:
        The nearest scalars, of two at the same distance the smaller, twice, and which they are. NaN stays.

    Raises:
        ValueError: Shapes or dtypes that do not fit; no scalars; scalars that are NaN.

    Cost:
        n d log V comparisons; memory n d.

    Source:
        Disentanglement via latent quantization: Hsu, Dorrell, Whittington, Wu and Finn, 2023.

    Example:
        >>> import torch
        >>> found = nearest_scalars(torch.tensor([[0.4, 9.0]]), torch.tensor([[0.0, 1.0], [8.0, -8.0]]))
        >>> found.output.tolist(), found.indices.tolist()
        ([[0.0, 8.0]], [[0, 0]])
    """
    checks.matrices("nearest_scalars", x=x, scalars=scalars)
    if scalars.shape[0] != x.shape[1] or scalars.shape[1] == 0:
        raise ValueError(
            f"nearest_scalars: scalars have shape {list(scalars.shape)}, expected [{x.shape[1]}, V] with V at least 1"
        )
    if not torch.compiler.is_compiling() and bool(scalars.isnan().any()):
        raise ValueError("nearest_scalars: a scalar is NaN")
    # In float64 midpoints of numbers of less precision are exact.
    ascending, order = scalars.detach().double().sort(dim=1, stable=True)
    middles = (ascending[:, :-1] + (ascending[:, 1:] - ascending[:, :-1]) / 2).contiguous()
    at = torch.searchsorted(middles, x.detach().double().T.contiguous())
    indices = order.gather(1, at).T
    broken = x.detach().isnan()
    chosen = scalars.gather(1, indices.T).T.masked_fill(broken, torch.nan)
    return Scalars(through(x, chosen, "straight"), chosen, indices.masked_fill(broken, -1))


def finite_scalars(x: torch.Tensor, levels: Sequence[int]) -> FiniteScalars:
    """Squash each number by a tanh and round it to one of a few levels: finite scalar quantisation.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        levels: How many levels each of the d dimensions has, each at least 2, their product below 2^63. Odd numbers of
            levels lie evenly around 0; an even number has one more below it, and x = 0 is one of them.

    Returns:
        The rounded numbers, divided by half of their levels, and the index of their combination, in which the first
        dimension counts least.

    Raises:
        ValueError: Levels that do not fit.

    Cost:
        A few operations a number.

    Source:
        Finite scalar quantization: Mentzer, Minnen, Agustsson and Tschannen, 2023.

    Example:
        >>> import torch
        >>> found = finite_scalars(torch.tensor([[0.1, -9.0, 9.0]]), (3, 5, 4))
        >>> found.output.tolist(), found.indices.tolist()
        ([[0.0, -1.0, 0.5]], [46])
    """
    checks.matrices("finite_scalars", x=x)
    if len(levels) != x.shape[1] or not all(isinstance(n, int) and n >= 2 for n in levels):
        raise ValueError(f"finite_scalars: levels are {list(levels)}, expected {x.shape[1]} whole numbers from 2")
    if math.prod(levels) >= 2**63:
        raise ValueError(f"finite_scalars: levels are {list(levels)}, and have too many combinations")
    count = torch.tensor(levels, device=x.device)
    half = count // 2
    reach = (count - 1).to(x.dtype) * (1 + 1e-3) / 2
    offset = (count % 2 == 0).to(x.dtype) / 2
    bounded = torch.tanh(x + torch.atanh(offset / reach)) * reach - offset
    rounded = through(bounded, bounded.detach().round(), "straight")
    basis = torch.tensor([math.prod(levels[:place]) for place in range(len(levels))], device=x.device)
    whole = rounded.detach()
    broken = whole.isnan().any(1)
    indices = ((whole.nan_to_num().long() + half) * basis).sum(1)
    return FiniteScalars(rounded / half.to(x.dtype), indices.masked_fill(broken, -1))


def finite_scalars_of(
    indices: torch.Tensor, levels: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Return the output of `finite_scalars` that has these indices, [n, d].

    Example:
        >>> import torch
        >>> finite_scalars_of(torch.tensor([46]), (3, 5, 4)).tolist()
        [[0.0, -1.0, 0.5]]
    """
    found, left = [], indices
    for count in levels:
        found.append((left % count - count // 2).to(dtype) / (count // 2))
        left = left // count
    return torch.stack(found, 1)
