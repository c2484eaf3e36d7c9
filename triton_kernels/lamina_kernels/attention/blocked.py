"""The form for machines without a GPU: plain torch, one tile of scores at a time, memory flat in both lengths."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lamina_kernels.attention.blocked_distance import Distance
from lamina_kernels.attention.blocked_scores import FAR, LOG2E, Scores, add_product, sigmoid_
from lamina_kernels.attention.blocked_top import Top, largest
from lamina_kernels.attention.blocked_visits import Visit, walk
from lamina_kernels.attention.op_arguments import empty_sums
from lamina_kernels.attention.problem import Problem, Sums

Found = dict[str, torch.Tensor]
"""Sums of the queries turned to, by the names of `Sums`, [..., items, heads * queries, ...]."""


def forward(p: Problem) -> Sums:
    """Return all sums that the problem's tier and `topk` ask for."""
    scores = Scores(p)
    of_rows = _sigmoid if p.sigmoid else _softmax
    results = empty_sums(p)
    for rows, visits in walk(p):
        scores.turn_to(rows)
        for name, value in of_rows(scores, visits).items():
            whole = getattr(results, name)
            for into, part in zip(whole, value, strict=True) if name == "distance" else [(whole, value)]:
                scores.by_item(into)[rows.items, rows.heads, rows.queries] = part.unflatten(1, scores.shape[1:])
    return results


class _Largest:
    """The largest score of each row so far, and where it and the next ones stand, as far as the problem asks."""

    def __init__(self, scores: Scores, shape: tuple[int, ...]) -> None:
        p = scores.problem
        self._scores = scores
        self.score = torch.full(shape, -torch.inf, dtype=p.dtype, device=p.q.device)
        self._key = torch.full(shape, -1, dtype=torch.int64, device=p.q.device) if p.tier >= 2 else None
        self._top = Top(shape, p.topk, p.dtype, p.q.device) if p.topk else None

    def add(self, s: torch.Tensor, visit: Visit) -> None:
        """Take a tile of scores."""
        first = visit.keys.start - self._scores.rows.first_key
        if self._key is None:
            high = s.amax(-1)
        else:
            high, place = largest(s)
            self._key = torch.where(high > self.score, place + first, self._key)
        self.score = torch.maximum(self.score, high)
        if self._top is not None:
            self._top.add(self._scores.memory("weights", s.shape[-1]).copy_(s), first)

    def result(self) -> Found:
        """Return what was asked for."""
        found = {"max": self.score}
        if self._key is not None:
            found["argmax"] = self._key
        if self._top is not None:
            found |= {"top_scores": self._top.scores, "top_keys": self._top.keys}
        return found


def _softmax(scores: Scores, visits: Iterator[Visit]) -> Found:
    """Sum over the tiles of some queries, relative to the largest score so far; sums shrink when it rises.

    Each line that names the whole tile reads it once more while it lies in the cache. Torch's exp takes many times as
    long where it underflows, its exp2 does not.
    """
    p, items = scores.problem, scores.rows.items
    largest_so_far = _Largest(scores, scores.left.shape[:2])
    top = largest_so_far.score
    mass, spread, square = (torch.zeros_like(top) for _ in range(3))
    out = top.new_zeros(*top.shape, scores.v.shape[2])
    columns = None if scores.columns is None else top.new_zeros(*top.shape, scores.columns.shape[3])
    distance = Distance(scores.by_head(top)) if p.tier >= 2 else None
    for visit in visits:
        s = scores.tile(visit)
        largest_so_far.add(s, visit)
        risen = largest_so_far.score
        base = risen.masked_fill(risen == -torch.inf, 0)
        step = _rise(top, base)
        decay = step.exp()
        top = risen
        z = s.sub_(base[..., None])
        if visit.hides or p.key_bias is not None:
            z.clamp_min_(FAR)
        weights = torch.mul(z, LOG2E, out=scores.memory("weights", s.shape[2])).exp2_()
        part = weights.sum(-1)
        add_product(out.mul_(decay[..., None]), weights, scores.v[items, visit.keys])
        if p.tier >= 1:
            spread = decay * (spread + step * mass) + z.mul_(weights).sum(-1)
        if p.tier >= 2:
            square = decay.square() * square + torch.mul(weights, weights, out=z).sum(-1)
        if distance is not None:
            first = scores.first_distance(visit.keys)
            decayed, added, tile, scratch = (scores.by_head(x) for x in (decay, part, weights, z))
            distance.add(decayed, added, tile, first, scratch)
        if columns is not None:
            columns = decay[..., None] * columns + scores.sum_columns(weights, visit)
        mass = decay * mass + part
    none = mass == 0
    share = (1 / mass).masked_fill_(none, 0)
    log = mass.log()
    found = {"out": out.mul_(share[..., None]), "lse": log + top.masked_fill(none, 0), **largest_so_far.result()}
    if p.tier >= 1:
        found["entropy"] = log.masked_fill(none, 0) - spread * share
        found["expected_score"] = top.masked_fill(none, 0) + spread * share
    if p.tier >= 2:
        found["sum_p2"] = square * share.square()
    if distance is not None:
        found["distance"] = torch.stack([x.flatten(1) for x in distance.result()])
    if columns is not None:
        found["columns"] = columns * share[..., None]
    return found


def _rise(top: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return the largest score so far less the one that a tile brought: sums so far shrink by exp of it."""
    return (top - base).clamp_min_(FAR)


def _sigmoid(scores: Scores, visits: Iterator[Visit]) -> Found:
    """Sum over the tiles of some queries, whose weights are the sigmoids of their scores."""
    p, items = scores.problem, scores.rows.items
    largest_so_far = _Largest(scores, scores.left.shape[:2])
    square = torch.zeros_like(largest_so_far.score)
    out = square.new_zeros(*square.shape, scores.v.shape[2])
    columns = None if scores.columns is None else square.new_zeros(*square.shape, scores.columns.shape[3])
    for visit in visits:
        s = scores.tile(visit)
        largest_so_far.add(s, visit)
        weights = sigmoid_(s)
        add_product(out, weights, scores.v[items, visit.keys])
        if columns is not None:
            columns += scores.sum_columns(weights, visit)
        if p.tier >= 2:
            square += torch.mul(weights, weights, out=weights).sum(-1)
    found = {"out": out, **largest_so_far.result()}
    if p.tier >= 2:
        found["sum_p2"] = square
    if columns is not None:
        found["columns"] = columns
    return found
