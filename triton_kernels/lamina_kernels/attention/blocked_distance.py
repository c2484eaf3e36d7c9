"""Mean and variance of d = i + shift - j and of |d| under the weights of a query, a tile at a time."""

from __future__ import annotations

import torch


class Moments:
    """Mean and sum of squared deviations of what was added so far, under weights that may shrink meanwhile.

    Deviations are taken from the mean of a tile and then moved: sums of d² would cancel in float32.
    """

    def __init__(self, like: torch.Tensor) -> None:
        self._weight, self.mean, self._square = (torch.zeros_like(like) for _ in range(3))

    def add(self, decay: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, square: torch.Tensor) -> None:
        """Let the sums so far shrink by `decay` and take a tile's weight, mean and squared deviations."""
        before = self._weight * decay
        self._weight = before + weight
        share = weight / self._weight.clamp_min(torch.finfo(weight.dtype).tiny)
        step = mean - self.mean
        self.mean = self.mean + step * share
        self._square = self._square * decay + square + step.square() * before * share

    @property
    def variance(self) -> torch.Tensor:
        """The variance, 0 of nothing."""
        return self._square / self._weight.clamp_min(torch.finfo(self._weight.dtype).tiny)


class Distance:
    """The four statistics of `Sums.distance`, of rows [items, heads, queries]."""

    def __init__(self, like: torch.Tensor) -> None:
        self._signed, self._absolute = Moments(like), Moments(like)

    def add(
        self, decay: torch.Tensor, weight: torch.Tensor, p: torch.Tensor, first: int, scratch: torch.Tensor
    ) -> None:
        """Take a tile.

        Args:
            decay: [items, heads, queries]: by how much the weights so far have shrunk.
            weight: [items, heads, queries]: the sums of `p`.
            p: [items, heads, queries, keys]: the weights.
            first: d of the first query and the first key.
            scratch: Like `p`, overwritten.
        """
        queries, keys = p.shape[2:]
        # Counted from the tile's corner, numbers stay small.
        corner = torch.arange(queries, dtype=p.dtype, device=p.device)[:, None] - torch.arange(
            keys, dtype=p.dtype, device=p.device
        )
        mean, square = _about_mean(p, weight, corner, scratch)
        mean = mean + first
        self._signed.add(decay, weight, mean, square)
        if first - keys + 1 >= 0:
            self._absolute.add(decay, weight, mean, square)
        elif first + queries - 1 <= 0:
            self._absolute.add(decay, weight, -mean, square)
        else:
            self._absolute.add(decay, weight, *_about_mean(p, weight, corner.add_(first).abs_(), scratch))

    def result(self) -> list[torch.Tensor]:
        """Return mean and variance of d, and of |d|."""
        return [self._signed.mean, self._signed.variance, self._absolute.mean, self._absolute.variance]


def _about_mean(
    p: torch.Tensor, weight: torch.Tensor, d: torch.Tensor, scratch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of d under p, and the sum of squared deviations from it; 0 where there is no weight."""
    total = torch.mul(p, d, out=scratch).sum(-1)
    mean = total / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    deviations = torch.sub(d, mean[..., None], out=scratch)
    return mean, deviations.square_().mul_(p).sum(-1)
