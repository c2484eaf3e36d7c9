"""The second pass of the form for machines without a GPU: what keys receive, once the weights are known."""

from __future__ import annotations

import torch

from lamina_kernels.attention.blocked_backward import weights_and_logs
from lamina_kernels.attention.blocked_scores import Scores
from lamina_kernels.attention.blocked_visits import walk
from lamina_kernels.attention.gradients import NO_KEY
from lamina_kernels.attention.problem import MASS_BLOCK, Masses, Problem, Wanted
from lamina_kernels.tiles.rows import ceil_div


def mass(p: Problem, lse: torch.Tensor | None, wanted: Wanted) -> Masses:
    """Return what the keys receive, by weights whose lse is given; sigmoids have none."""
    scores = Scores(p)
    B, H, Nq, _ = p.q.shape
    Nk = p.k.shape[2]
    known = None if lse is None else scores.by_item(lse.masked_fill(lse == -torch.inf, NO_KEY))
    number = {"dtype": p.dtype, "device": p.q.device}
    received = torch.zeros(B, H, Nk, **number) if wanted.received else None
    sizes = ceil_div(Nq, MASS_BLOCK), ceil_div(Nk, MASS_BLOCK)
    blocks = torch.zeros(B, H, *sizes, **number) if wanted.blocks else None
    above = torch.zeros(B, H, Nq, dtype=torch.int64, device=p.q.device) if wanted.share is not None else None
    for rows, visits in walk(p):
        scores.turn_to(rows)
        items, heads, queries = rows[:3]
        own = None if known is None else known[items, heads, queries]
        for visit in visits:
            weights = scores.by_head(weights_and_logs(scores, visit, own, scores.tile(visit)))
            if received is not None:
                scores.by_item(received)[items, heads, visit.keys] += weights.sum(2)
            if blocks is not None:
                over_keys = weights @ _members(visit.keys, weights)
                whole = _members(queries, weights).mT @ over_keys
                span = slice(queries.start // MASS_BLOCK, ceil_div(queries.stop, MASS_BLOCK))
                others = slice(visit.keys.start // MASS_BLOCK, ceil_div(visit.keys.stop, MASS_BLOCK))
                scores.by_item(blocks)[items, heads, span, others] += whole
            if above is not None and wanted.share is not None:
                scores.by_item(above)[items, heads, queries] += (weights > wanted.share).sum(-1)
    return Masses(received, blocks, above)


def _members(rows: slice, like: torch.Tensor) -> torch.Tensor:
    """Return which block each row is in, [rows, blocks that they touch], 1 or 0."""
    number = torch.arange(rows.start, rows.stop, device=like.device) // MASS_BLOCK - rows.start // MASS_BLOCK
    return torch.nn.functional.one_hot(number).to(like.dtype)
