"""The scores of a query and a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Dot:
    """The scaled product: s = scale <q, k>, where scale is `scale=` of `attend`, or 1 / sqrt(D).

    Example:
        >>> Dot()
        Dot()
    """


@dataclass(frozen=True)
class Cosine:
    """The cosine over a temperature: s = <q, k> / (|q| |k| temperature). A query or a key of zeros scores 0.

    Attributes:
        temperature: A positive number, or a tensor of one or of H (one a query head), differentiable.

    Raises:
        ValueError: `temperature` is a number that is not positive and finite.

    Example:
        >>> Cosine(0.1)
        Cosine(temperature=0.1)
    """

    temperature: float | torch.Tensor = 1.0

    def __post_init__(self) -> None:
        _positive("Cosine: temperature", self.temperature)


@dataclass(frozen=True)
class SquaredDistance:
    """A Gaussian of the distance: s = -|q - k|² / (2 bandwidth²).

    Its softmax is the Nadaraya-Watson regression of v on k at q, its sigmoid or exponential an RBF kernel. |q - k|² is
    computed as |q|² + |k|² - 2 <q, k>, with norms of the rows as they were rounded: move rows by their mean before, if
    that is far from 0.

    Attributes:
        bandwidth: A positive number, or a tensor of one or of H (one a query head), differentiable.

    Raises:
        ValueError: `bandwidth` is a number that is not positive and finite.

    Example:
        >>> SquaredDistance(2.0)
        SquaredDistance(bandwidth=2.0)
    """

    bandwidth: float | torch.Tensor = 1.0

    def __post_init__(self) -> None:
        _positive("SquaredDistance: bandwidth", self.bandwidth)


Score = Dot | Cosine | SquaredDistance


class Factors(NamedTuple):
    """A score as `Problem` knows it: scale a_i c_j <q_i, k_j> + u_i + w_j.

    Attributes:
        scale: A number.
        query_scale: a, [B, H, Nq], or None.
        key_scale: c, [B, H, Nk], or None.
        query_bias: u, [B, H, Nq], or None.
        key_bias: w, [B, H, Nk], or None.
    """

    scale: float
    query_scale: torch.Tensor | None = None
    key_scale: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None
    key_bias: torch.Tensor | None = None


def factors(score: Score, q: torch.Tensor, k: torch.Tensor, scale: float | None, dtype: torch.dtype) -> Factors:
    """Return the factors and terms of a score, differentiable in rows, temperature and bandwidth.

    Args:
        score: The score function, checked.
        q: [B, H, Nq, D].
        k: [B, Hk, Nk, D].
        scale: Of `Dot`, None for 1 / sqrt(D).
        dtype: Of factors and terms.
    """
    if isinstance(score, Dot):
        return Factors(q.shape[3] ** -0.5 if scale is None else float(scale))
    queries, keys = squares(q, dtype), _by_query_head(squares(k, dtype), q.shape[1])
    if isinstance(score, Cosine):
        # A row of zeros scores 0 whatever its factor; an infinite one would make NaN of it.
        a, c = (norms.masked_fill(norms == 0, 1).rsqrt() for norms in (queries, keys))
        if isinstance(score.temperature, torch.Tensor):
            return Factors(1.0, query_scale=a / by_head(score.temperature, dtype), key_scale=c)
        return Factors(1 / score.temperature, query_scale=a, key_scale=c)
    if isinstance(score.bandwidth, torch.Tensor):
        inverse = by_head(score.bandwidth, dtype).square().reciprocal()
        a = inverse.expand(queries.shape)
        return Factors(1.0, query_scale=a, query_bias=queries * (-0.5 * inverse), key_bias=keys * (-0.5 * inverse))
    inverse = score.bandwidth**-2
    return Factors(inverse, query_bias=queries * (-0.5 * inverse), key_bias=keys * (-0.5 * inverse))


def squares(rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return |row|², [...], of rows [..., D]."""
    return rows.to(dtype).square().sum(-1)


def by_head(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of one or of H as [1 or H, 1], which multiplies [B, H, N]."""
    return value.to(dtype).reshape(-1, 1)


def _by_query_head(value: torch.Tensor, heads: int) -> torch.Tensor:
    """Return [B, H, N] of [B, Hk, N]."""
    return value.repeat_interleave(heads // value.shape[1], 1) if value.shape[1] != heads else value


def _positive(name: str, value: float | torch.Tensor) -> None:
    if not isinstance(value, torch.Tensor) and not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value!r}, expected a positive number, or a tensor")
