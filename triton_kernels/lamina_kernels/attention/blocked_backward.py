"""Gradients of the form for machines without a GPU: tiles of scores are made again, none is kept."""

from __future__ import annotations

import torch

from lamina_kernels.attention.blocked_scores import FAR, LOG2E, Scores, sigmoid_
from lamina_kernels.attention.blocked_visits import Visit, walk
from lamina_kernels.attention.gradients import Terms, before_cap, score_gradients, terms
from lamina_kernels.attention.problem import Gradients, Problem, Sums


def backward(p: Problem, sums: Sums, gradients: Sums) -> Gradients:
    """Return the gradients by all that the problem holds.

    Args:
        p: The attention.
        sums: What its forward pass left; `argmax` is needed where a gradient of `max` came.
        gradients: The gradients of these, None where none came.
    """
    scores = Scores(p)
    known = sums.max if sums.lse is None else sums.lse
    dout = None if gradients.out is None else scores.by_item(gradients.out)
    delta = torch.zeros_like(known) if dout is None and known is not None else None
    whole = _by_item(scores, terms(p, sums, gradients, delta))
    made = Accumulated(scores)
    for rows, visits in walk(p):
        scores.turn_to(rows)
        made.start()
        place = rows.items, rows.heads, rows.queries
        own, down = whole.of(*place), None if dout is None else dout[place].to(p.dtype).flatten(1, 2)
        for visit in visits:
            keys = visit.keys
            capped = None if p.softcap is None else scores.memory("capped", keys.stop - keys.start)
            logs = scores.tile(visit, capped=capped)
            weights = weights_and_logs(scores, visit, own.lse, logs)
            ds = scores.memory("gradients", keys.stop - keys.start)
            if down is None:
                ds.zero_()
            else:
                made.v[rows.items, keys].baddbmm_(weights.mT, down)
                torch.bmm(down, scores.v[rows.items, keys].mT, out=ds)
            score_gradients(
                own,
                scores.by_head(weights),
                scores.by_head(ds),
                None if p.sigmoid else scores.by_head(logs),
                None if own.distance is None else scores.distance(keys),
                None if scores.columns is None else scores.columns[rows.items, rows.heads, keys],
                keys.start - rows.first_key,
                sigmoid=p.sigmoid,
            )
            made.take(visit, ds, capped)
        made.finish()
    return made.result(p)


def weights_and_logs(scores: Scores, visit: Visit, lse: torch.Tensor | None, s: torch.Tensor) -> torch.Tensor:
    """Return the weights of a tile of scores, which turns into their logarithms if they are no sigmoids.

    Args:
        scores: Whose tile it is.
        visit: The tile.
        lse: [items, heads, queries], finite; None for sigmoids.
        s: The scores, overwritten.
    """
    if lse is None:
        return sigmoid_(s)
    s.sub_(lse.flatten(1)[..., None])
    if visit.hides or scores.problem.key_bias is not None:
        s.clamp_min_(FAR)
    return torch.mul(s, LOG2E, out=scores.memory("weights", s.shape[2])).exp2_()


def _by_item(scores: Scores, whole: Terms) -> Terms:
    """Return terms [..., B, H, Nq, ...] as [..., items, heads, Nq, ...]."""
    parts = {
        name: None if x is None else scores.by_item(x) for name, x in whole._asdict().items() if name != "distance"
    }
    distance = None if whole.distance is None else torch.stack([scores.by_item(x) for x in whole.distance])
    return Terms(**parts, distance=distance)


class Accumulated:
    """Gradients in the making, from those of the scores.

    Attributes:
        v: The gradient of the values, [items, Nk, Dv], which others add to.
    """

    def __init__(self, scores: Scores) -> None:
        self._scores, p = scores, scores.problem

        def zeros(x: torch.Tensor | None) -> torch.Tensor | None:
            """Make room for the gradient of [B, H, ...], as [items, heads, ...]."""
            return None if x is None else torch.zeros_like(scores.by_item(x), memory_format=torch.contiguous_format)

        self._k, self.v = (torch.zeros_like(x, memory_format=torch.contiguous_format) for x in (scores.k, scores.v))
        self._q = torch.zeros_like(scores.by_item(p.q), dtype=p.dtype, memory_format=torch.contiguous_format)
        self._a, self._c, self._u, self._w = (zeros(x) for x in (p.query_scale, p.key_scale, p.query_bias, p.key_bias))
        self._slopes, self._table = (
            None if x is None else zeros(x.expand(len(p.q), *x.shape)) for x in (p.slopes, p.table)
        )

    def start(self) -> None:
        """Begin with the queries turned to."""
        self._left = torch.zeros_like(self._scores.left)

    def take(self, visit: Visit, ds: torch.Tensor, capped: torch.Tensor | None) -> None:
        """Take the gradients of a tile of scores, [items, heads * queries, keys], and overwrite them.

        Args:
            visit: The tile.
            ds: The gradients.
            capped: The scores before b was added, if the problem caps them.
        """
        scores, p, keys = self._scores, self._scores.problem, visit.keys
        items, heads, queries = scores.rows[:3]
        tile = scores.by_head(ds)
        if self._slopes is not None:
            self._slopes[items, heads] -= (tile * scores.distance(keys).abs_()).sum((-2, -1))
        if self._table is not None:
            self._table[items, heads].index_add_(2, scores.steps(keys).flatten(), tile.flatten(2))
        if p.softcap is not None and capped is not None:
            before_cap(ds, capped, p.softcap)
        if self._u is not None:
            self._u[items, heads, queries] += tile.sum(-1)
        if self._w is not None:
            self._w[items, heads, keys] += tile.sum(-2)
        if self._c is None:
            self._k[items, keys].baddbmm_(ds.mT, scores.left)
        else:
            self._add_scaled_keys(tile, visit)
        self._left.baddbmm_(ds, scores.k[items, keys])

    def _add_scaled_keys(self, tile: torch.Tensor, visit: Visit) -> None:
        """Take the part of keys whose products are scaled, and scale the tile."""
        scores, keys = self._scores, visit.keys
        items, heads = scores.rows[:2]
        scale = scores.key_scale(visit)
        assert self._c is not None
        each = tile.mT @ scores.by_head(scores.left)
        self._c[items, heads, keys] += (each * scores.k[items, None, keys]).sum(-1)
        self._k[items, keys] += each.mul_(scale[..., None]).sum(1)
        tile.mul_(scale[:, :, None])

    def finish(self) -> None:
        """Write the gradients of the queries turned to."""
        scores, p = self._scores, self._scores.problem
        place = scores.rows.items, scores.rows.heads, scores.rows.queries
        left = scores.by_head(self._left).mul_(p.scale)
        if p.query_scale is not None and self._a is not None:
            self._a[place] = (left * scores.by_item(p.q)[place]).sum(-1)
            left = left * scores.by_item(p.query_scale)[place][..., None]
        self._q[place] = left

    def result(self, p: Problem) -> Gradients:
        """Return all gradients as a problem has its tensors; key heads of which each had copies get their sums."""
        each = {"q": self._q, "k": self._k, "v": self.v, "query_scale": self._a, "key_scale": self._c}
        each |= {"query_bias": self._u, "key_bias": self._w}
        found = {}
        for name, x in each.items():
            if x is not None:
                like: torch.Tensor = getattr(p, name)
                whole = x.reshape(like.shape[0], -1, *like.shape[2:]) if x.shape[-1] else like.new_zeros(like.shape)
                found[name] = whole.unflatten(1, (like.shape[1], -1)).sum(2).to(like.dtype)
        for name, x in {"slopes": self._slopes, "table": self._table}.items():
            if x is not None:
                found[name] = x.reshape(len(p.q), *getattr(p, name).shape).sum(0)
        return Gradients(**found)
