"""Rows as sums of their nearest codes, one codebook after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from lamina_kernels import checks
from lamina_kernels.gram import nearest
from lamina_kernels.gram.selection.api import MOST
from lamina_kernels.sparse.codebooks.through import Through, through
from lamina_kernels.sparse.codes import Codes
from lamina_kernels.sparse.decoding.api import Impl, decode

Distance = Literal["squared", "euclidean", "cosine"]
DISTANCES = ("squared", "euclidean", "cosine")


class Quantized(NamedTuple):
    """What `quantize` returns.

    Attributes:
        output: [n, d], the sum of the chosen codes, with a gradient by x alone.
        chosen: [n, d], the same, with a gradient by the codebook alone.
        codes: The chosen codes of each row, nearest first, each with the value 1.
        distances: [n, k], differentiable by both; see `gram.nearest`.
    """

    output: torch.Tensor
    chosen: torch.Tensor
    codes: Codes
    distances: torch.Tensor


class ResidualQuantized(NamedTuple):
    """What `residual_quantize` returns.

    Attributes:
        output: [n, d], the sum of all chosen codes, with a gradient by x alone.
        chosen: [n, d], the same, with a gradient by the codebooks alone.
        indices: [n, Q] int64, the code of each stage; -1 for a row that is not finite.
        left: [Q], the mean squared norm of what each stage leaves, without gradients.
    """

    output: torch.Tensor
    chosen: torch.Tensor
    indices: torch.Tensor
    left: torch.Tensor


def quantize(
    x: torch.Tensor,
    codebook: torch.Tensor,
    k: int = 1,
    *,
    distance: Distance = "squared",
    gradient: Through = "straight",
    impl: Impl | None = None,
) -> Quantized:
    """Replace each row by the sum of its k nearest codes.

    Which codes are nearest is exact, whatever the precision of products, and the matrix of distances is never built.
    With `distance="cosine"` and k codes it is the layer of codebook features; a codebook loss is
    `(found.chosen - x.detach()).square().mean()`, a commitment loss `(x - found.output.detach()).square().mean()`.

    Args:
        x: [n, d], float16, bfloat16, float32 or float64.
        codebook: [M, d], the same dtype and device.
        k: How many codes, from 1 to 64.
        distance: `"squared"`, `"euclidean"` or `"cosine"`, as of `gram.nearest`; of equally near codes the first.
        gradient: What the gradient by x is taken to be: `"straight"`, that by the output; `"rotation"`, that turned
            and scaled as the row is onto its codes.
        impl: As of `decode`.

    Returns:
        The sum of the codes, twice, and which they are. A row that is not finite gets NaN; a code that is not finite is
        nobody's.

    Raises:
        ValueError: Shapes, dtypes or devices that do not fit; k below 1 or above M; fewer than k finite codes.
        RuntimeError: As of `decode`.

    Cost:
        As of `gram.nearest`, and of `decode` with k entries a row.

    Source:
        Neural discrete representation learning: van den Oord, Vinyals and Kavukcuoglu, 2017. Codebook features: Tamkin,
        Taufeeque and Goodman, 2023.

    Example:
        >>> import torch
        >>> x, codebook = torch.tensor([[1.0, 0.2], [-3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0]])
        >>> found = quantize(x, codebook, 2, distance="cosine")
        >>> found.codes.ids.tolist(), found.output.tolist()
        ([[0, 1], [1, 2]], [[2.0, 2.0], [-2.0, 2.0]])
    """
    _check("quantize", x, codebook, distance, gradient)
    given, k = k, checks.whole(k) or 0
    if not 1 <= k <= min(MOST, len(codebook)):
        raise ValueError(f"quantize: k is {given!r}, expected a whole number from 1 to {min(MOST, len(codebook))}")
    found = nearest(x, codebook, k, distance=distance, impl=impl)
    # A row that is not finite has no codes, and becomes NaN.
    values = x.new_ones(()).masked_fill(found.indices < 0, torch.nan)
    codes = Codes(values, found.indices.clamp(min=0).int(), len(codebook), check=False)
    chosen = decode(codes, codebook, impl=impl)
    return Quantized(through(x, chosen, gradient), chosen, codes, found.distances)


def residual_quantize(
    x: torch.Tensor,
    codebooks: torch.Tensor | Sequence[torch.Tensor],
    *,
    distance: Distance = "squared",
    gradient: Through = "straight",
    impl: Impl | None = None,
) -> ResidualQuantized:
    """Replace each row by its nearest code, what that leaves by its nearest code of the next codebook, and so on.

    Args:
        x: As of `quantize`.
        codebooks: Q codebooks [M_q, d], or one tensor [Q, M, d].
        distance: As of `quantize`.
        gradient: As of `quantize`, of the whole sum.
        impl: As of `decode`.

    Returns:
        The sum of the codes, twice, which they are, and what each stage leaves.

    Raises:
        ValueError: As of `quantize`; no codebooks.
        RuntimeError: As of `decode`.

    Cost:
        That of Q times `quantize`.

    Source:
        SoundStream: Zeghidour et al., 2021.

    Example:
        >>> import torch
        >>> codebooks = torch.tensor([[0.0], [5.0]]), torch.tensor([[0.5], [-0.5]])
        >>> found = residual_quantize(torch.tensor([[5.4]]), codebooks)
        >>> found.output.tolist(), found.indices.tolist()
        ([[5.5]], [[1, 0]])
    """
    if len(codebooks) == 0:
        raise ValueError("residual_quantize: no codebooks")
    left, chosen, indices, sizes = x.detach(), torch.zeros_like(x), [], []
    for codebook in codebooks:
        stage = quantize(left, codebook, distance=distance, gradient=gradient, impl=impl)
        chosen = chosen + stage.chosen
        left = left - stage.chosen.detach()
        broken = stage.codes.values.isnan()
        indices.append(stage.codes.ids.long().masked_fill(broken, -1)[:, 0])
        sizes.append(left.double().square().sum(1).mean().to(stage.distances.dtype))
    return ResidualQuantized(through(x, chosen, gradient), chosen, torch.stack(indices, 1), torch.stack(sizes))


def _check(name: str, x: torch.Tensor, codebook: torch.Tensor, distance: str, gradient: str) -> None:
    checks.matrices(name, x=x, codebook=codebook)
    checks.same_width(name, x=x, codebook=codebook)
    if distance not in DISTANCES:
        raise ValueError(f"{name}: distance is {distance!r}, expected one of {', '.join(map(repr, DISTANCES))}")
    if gradient not in ("straight", "rotation"):
        raise ValueError(f"{name}: gradient is {gradient!r}, expected 'straight' or 'rotation'")
