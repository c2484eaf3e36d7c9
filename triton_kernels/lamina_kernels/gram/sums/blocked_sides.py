"""Log-sum-exps of kernel values along rows and along columns in plain torch, from one walk over the tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina_kernels.gram.blocked_scores import Scores, block_of
from lamina_kernels.gram.functions import exp
from lamina_kernels.gram.pairs import Pairs
from lamina_kernels.gram.sums.blocked import FAR
from lamina_kernels.tiles.rows import tiles


def sides(p: Pairs) -> tuple[Tensor, Tensor]:
    """Return log sum_j exp(k_ij), [n], and log sum_i exp(k_ij), [m]."""
    block = block_of(p)
    scores, of_rows, of_columns = Scores(p, block), _Side(p, p.n), _Side(p, p.m)
    for rows in tiles(p.n, block):
        scores.turn_to(rows)
        for columns in tiles(p.m, block):
            k = scores.tile(columns)
            of_rows.add(rows, k, 1)
            of_columns.add(columns, k, 0)
    return of_rows.result(), of_columns.result()


class _Side:
    """The log-sum-exps of one side so far: the largest values, and the sums of exponentials relative to these."""

    def __init__(self, p: Pairs, count: int) -> None:
        self._top = p.x.new_full((count,), -torch.inf, dtype=p.dtype)
        self._mass = p.x.new_zeros(count, dtype=torch.float64)

    def add(self, span: slice, k: Tensor, axis: int) -> None:
        """Add the values of a tile along an axis."""
        top = torch.maximum(self._top[span], k.amax(axis))
        start = top.masked_fill(top == -torch.inf, 0)
        decay = (self._top[span] - start).double().clamp_min_(FAR).exp_()
        more = exp((k - start.unsqueeze(axis)).clamp_min_(FAR)).sum(axis)
        self._top[span], self._mass[span] = top, self._mass[span] * decay + more

    def result(self) -> Tensor:
        """Return the log-sum-exps."""
        return (self._mass.log() + self._top).to(self._top.dtype)
