"""Divergence of two attentions without either matrix, and its gradients, in plain torch."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from lamina_kernels.attention.blocked import forward
from lamina_kernels.attention.blocked_backward import Accumulated, weights_and_logs
from lamina_kernels.attention.blocked_scores import Scores
from lamina_kernels.attention.blocked_visits import Rows, Visit, walk
from lamina_kernels.attention.gradients import NO_KEY
from lamina_kernels.attention.problem import Divergences, Gradients, Known, Problem

_LOG2 = 0.6931471805599453


def divergence(first: Problem, second: Problem, kind: str, known: Known = None) -> Divergences:
    """Return the divergence of the weights of two problems, and the means that its gradients need.

    The lse of both comes first, if it is not known; then each tile of both is made once more.
    """
    problems = _bare(first), _bare(second)
    lse, other_lse = (_lse(p) for p in problems) if known is None else (x.clone() for x in known)
    both = [_Side(p, known) for p, known in zip(problems, (lse, other_lse), strict=True)]
    for side in both:
        side.hides = kind == "kl" and any(p.key_bias is not None for p in problems)
    own = both[0].scores
    value, mean, other_mean = (torch.zeros_like(lse) for _ in range(3))
    for rows, visits in walk(problems[0]):
        place = rows.items, rows.heads, rows.queries
        for side in both:
            side.turn_to(rows)
        for visit in visits:
            tiles = [side.tile(visit) for side in both]
            by_p, r_by_r = _derivatives(kind, *tiles)
            part, other_part = by_p.mul_(tiles[0].weights).sum(-1), r_by_r.sum(-1)
            whole = part if kind == "kl" else part + other_part
            if tiles[0].hidden is not None and tiles[1].hidden is not None:
                # A key that the first sees and the second does not: the divergence is infinite.
                whole = whole.masked_fill((tiles[1].hidden & ~tiles[0].hidden).any(-1), torch.inf)
            for into, of_tile in ((value, whole), (mean, part), (other_mean, other_part)):
                own.by_item(into)[place] += own.by_head(of_tile)
    # Rounded, it may be less than nothing.
    value.clamp_min_(0)
    return Divergences(value, lse, other_lse, value.clone() if kind == "kl" else mean, other_mean)


def divergence_backward(
    first: Problem,
    second: Problem,
    kind: str,
    found: Divergences,
    gradient: torch.Tensor,
    needed: tuple[bool, bool] = (True, True),
) -> tuple[Gradients | None, Gradients | None]:
    """Return the gradients by each problem that needs them; v has none.

    Args:
        first: The problem of p.
        second: The problem of r.
        kind: "kl", "js" or "tv".
        found: What `divergence` returned.
        gradient: [B, H, Nq]: the gradient of its value.
        needed: Which of the two need gradients.
    """
    problems = _bare(first), _bare(second)
    both = [_Side(p, lse) for p, lse in zip(problems, (found.lse, found.other_lse), strict=True)]
    endless = found.value == torch.inf
    gradient, found_mean = gradient.masked_fill(endless, 0), found.mean.masked_fill(endless, 0)
    made = [Accumulated(side.scores) if of_side else None for side, of_side in zip(both, needed, strict=True)]
    own = both[0].scores
    for rows, visits in walk(problems[0]):
        place = rows.items, rows.heads, rows.queries
        for side, into in zip(both, made, strict=True):
            side.turn_to(rows)
            if into is not None:
                into.start()
        g, mean, other_mean = (
            own.by_item(x)[place].flatten(1)[..., None] for x in (gradient, found_mean, found.other_mean)
        )
        for visit in visits:
            tiles = [side.tile(visit) for side in both]
            by_p, r_by_r = _derivatives(kind, *tiles)
            if made[0] is not None:
                made[0].take(visit, by_p.sub_(mean).mul_(tiles[0].weights).mul_(g), tiles[0].capped)
            if made[1] is not None:
                made[1].take(visit, r_by_r.addcmul_(tiles[1].weights, other_mean, value=-1).mul_(g), tiles[1].capped)
        for into in made:
            if into is not None:
                into.finish()
    by_first, by_second = (
        None if into is None else into.result(p) for into, p in zip(made, (first, second), strict=True)
    )
    return by_first, by_second


class _Tile(NamedTuple):
    """Weights and their logarithms, [items, heads * queries, keys]; which keys their term hides; capped scores."""

    weights: torch.Tensor
    logs: torch.Tensor
    hidden: torch.Tensor | None
    capped: torch.Tensor | None


class _Side:
    """One of the two attentions.

    Attributes:
        hides: Whether tiles tell which keys their term hides.
    """

    hides = False

    def __init__(self, p: Problem, lse: torch.Tensor) -> None:
        self.scores = Scores(p)
        self._lse = self.scores.by_item(lse.masked_fill(lse == -torch.inf, NO_KEY))

    def turn_to(self, rows: Rows) -> None:
        self.scores.turn_to(rows)
        self._rows = rows

    def tile(self, visit: Visit) -> _Tile:
        p, keys = self.scores.problem, visit.keys.stop - visit.keys.start
        capped = None if p.softcap is None else self.scores.memory("capped", keys)
        logs = self.scores.tile(visit, capped=capped)
        hidden = logs == -torch.inf if self.hides else None
        rows = self._rows
        weights = weights_and_logs(self.scores, visit, self._lse[rows.items, rows.heads, rows.queries], logs)
        return _Tile(weights, logs, hidden, capped)


def _derivatives(kind: str, first: _Tile, second: _Tile) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the derivative by p_j, and r_j times the derivative by r_j, in new memory."""
    (p, log_p), (r, log_r) = first[:2], second[:2]
    if kind == "kl":
        return log_p - log_r, -p
    if kind == "js":
        middle = torch.logaddexp(log_p, log_r).sub_(_LOG2)
        return (log_p - middle).div_(2), (log_r - middle).div_(2).mul_(r)
    sign = (p - r).sign_().div_(2)
    return sign, sign.neg().mul_(r)


def _lse(p: Problem) -> torch.Tensor:
    lse = forward(p).lse
    assert lse is not None
    return lse


def _bare(p: Problem) -> Problem:
    """Return a problem without values and statistics, each of whose query heads has its own keys.

    So the two may share their keys among other groups of heads.
    """
    k = p.k.repeat_interleave(p.q.shape[1] // p.k.shape[1], 1)
    return replace(p, k=k, v=k[..., :0], tier=0, topk=0, columns=None)
