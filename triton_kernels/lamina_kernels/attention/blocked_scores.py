"""Tiles of scores in plain torch, one in memory at a time."""

from __future__ import annotations

import torch

from lamina_kernels.attention.blocked_visits import Rows, Visit
from lamina_kernels.attention.places import in_window
from lamina_kernels.attention.problem import Problem

LOG2E = 1.4426950408889634

# exp of it is 0 in float64 too, and 0 times it is 0, which is not so for -inf.
FAR = -1e4

_KEPT = 4

_NARROW = 16


class Scores:
    """The scores of a problem.

    Rows of k and v stand as [items, Nk, width], items being the pairs of a sequence and a head of keys; those of q as
    [items, heads of queries, Nq, width]. In a tile the queries of all heads stand below each other:
    [items, heads * queries, keys].

    Attributes:
        k: The keys, in the dtype that is computed in.
        v: The values.
        columns: `Problem.columns` as [items, heads, Nk, C], or None if they are not asked for.
    """

    def __init__(self, p: Problem) -> None:
        self.problem = p
        self.dtype = p.dtype
        self.k, self.v = p.k.to(p.dtype).flatten(0, 1), p.v.to(p.dtype).flatten(0, 1)
        self._q = self.by_item(p.q)
        self._a, self._c, self._u, self._w = (
            None if x is None else self.by_item(x) for x in (p.query_scale, p.key_scale, p.query_bias, p.key_bias)
        )
        self._slopes, self._table = (
            None if x is None else self.by_item(x.to(p.dtype).expand(len(p.q), *x.shape)) for x in (p.slopes, p.table)
        )
        columns = p.columns if p.tier >= 3 else None
        self.columns = None if columns is None else self.by_item(columns.to(p.dtype).expand(*p.q.shape[:2], -1, -1))
        self._memory: dict[str, torch.Tensor] = {}
        self._kept: dict[tuple[int, int, int], torch.Tensor] = {}

    def by_item(self, x: torch.Tensor) -> torch.Tensor:
        """Return [B, H, ...] as [items, heads, ...]."""
        return x.unflatten(1, (self.problem.k.shape[1], -1)).flatten(0, 1)

    def turn_to(self, rows: Rows) -> None:
        """Make the tiles that follow tiles of these queries."""
        self.rows = rows
        place = rows.items, rows.heads, rows.queries
        left = self._q[place].to(self.dtype) * self.problem.scale
        if self._a is not None:
            left = left.mul_(self._a[place][..., None])
        self.shape = left.shape[:3]
        self.left = left.flatten(1, 2)

    def memory(self, name: str, keys: int) -> torch.Tensor:
        """Return memory for a tile of the queries turned to, which the next call with this name takes back."""
        items, heads, queries = self.shape
        size = items * heads * queries * keys
        if name not in self._memory or len(self._memory[name]) < size:
            self._memory[name] = torch.empty(size, dtype=self.dtype, device=self.k.device)
        return self._memory[name][:size].view(items, heads * queries, keys)

    def tile(self, visit: Visit, *, capped: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of the queries turned to and these keys, -inf where one is hidden.

        Args:
            visit: The tile.
            capped: Takes the scores as they are before b is added.
        """
        p, keys = self.problem, visit.keys
        items, heads, queries = self.rows[:3]
        s = self.memory("scores", keys.stop - keys.start)
        torch.bmm(self.left, self.k[items, keys].mT, out=s)
        tile = self.by_head(s)
        if self._c is not None:
            tile.mul_(self.key_scale(visit)[:, :, None])
        if self._u is not None:
            tile.add_(self._u[items, heads, queries, None])
        if self._w is not None:
            tile.add_(self._w[items, heads, None, keys])
        if p.softcap is not None:
            s.div_(p.softcap).tanh_().mul_(p.softcap)
        if capped is not None:
            capped.copy_(s)
        if self._slopes is not None:
            tile.addcmul_(self.distance(keys).abs_(), self._slopes[items, heads, None, None], value=-1)
        if self._table is not None:
            tile.add_(self._table[items, heads][..., self.steps(keys)])
        if visit.crossed:
            tile.add_(self._hidden(keys))
        if visit.pairs is not None:
            tile.add_(torch.zeros_like(visit.pairs, dtype=self.dtype).masked_fill_(~visit.pairs, -torch.inf))
        return s

    def key_scale(self, visit: Visit) -> torch.Tensor:
        """Return c of these keys for each head turned to, [items, heads, keys]."""
        assert self._c is not None
        return self._c[self.rows.items, self.rows.heads, visit.keys]

    def sum_columns(self, weights: torch.Tensor, visit: Visit) -> torch.Tensor:
        """Return the sums of the columns of these keys under the weights of a tile, [items, heads * queries, C]."""
        assert self.columns is not None
        return (self.by_head(weights) @ self.columns[self.rows.items, self.rows.heads, visit.keys]).flatten(1, 2)

    def by_head(self, tile: torch.Tensor) -> torch.Tensor:
        """Return a tile as [items, heads, queries, keys]."""
        return tile.unflatten(1, self.shape[1:])

    def distance(self, keys: slice) -> torch.Tensor:
        """Return d = i + shift - j of the queries turned to and these keys, [queries, keys]."""
        here = {"dtype": self.dtype, "device": self.k.device}
        first = self.first_distance(keys)
        queries = torch.arange(first, first + self.shape[2], **here)
        return queries[:, None] - torch.arange(keys.stop - keys.start, **here)

    def first_distance(self, keys: slice) -> int:
        """Return d of the first query turned to and the first of these keys."""
        return self.rows.queries.start + self.rows.offset - keys.start

    def steps(self, keys: slice) -> torch.Tensor:
        """Return which entry of the table each pair takes, [queries, keys]."""
        assert self.problem.table is not None
        reach = self.problem.table.shape[1] // 2
        return self.distance(keys).long().clamp_(-reach, reach).add_(reach)

    def _hidden(self, keys: slice) -> torch.Tensor:
        """Return 0, or -inf where the window hides a pair, [queries, keys]: few tiles in turn need the same."""
        place = self.first_distance(keys), self.shape[2], keys.stop - keys.start
        if place not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            d = self.distance(keys)
            self._kept[place] = torch.zeros_like(d).masked_fill_(~in_window(self.problem, d), -torch.inf)
        return self._kept[place]


def add_product(out: torch.Tensor, weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Add weights @ v to `out`, the other way round if v has few columns.

    Of 1 to 15 columns torch multiplies matrices of a batch more slowly than of 16, of 1 the other way round four times
    as fast.
    """
    if v.shape[2] < _NARROW:
        return out.add_((v.mT @ weights.mT).mT)
    return out.baddbmm_(weights, v)


def sigmoid_(s: torch.Tensor) -> torch.Tensor:
    """Turn scores into 1 / (1 + exp(-s)), in place: torch's own takes many times as long."""
    return s.mul_(-LOG2E).exp2_().add_(1).reciprocal_()
