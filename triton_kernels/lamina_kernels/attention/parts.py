"""What programs that share the keys of a query leave, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lamina_kernels.attention.problem import Sums
from lamina_kernels.attention.states import Shares, merged, shares_of


def together(parts: Sequence[Sums]) -> Sums:
    """Return what one program would have left, of parts of the keys in their order; keys have their own numbers."""
    lses = [part.lse for part in parts if part.lse is not None]
    if lses:
        shares = shares_of(lses)
        sums = merged(parts, shares)
        sums = sums._replace(distance=_distance(parts, shares))
    else:
        sums = Sums(_sum(parts, "out"), sum_p2=_sum(parts, "sum_p2"), columns=_sum(parts, "columns"))
    # Of equals the first, as parts are in the order of keys.
    best, part = torch.stack([_of(part, "max") for part in parts]).max(0)
    argmax = None
    if parts[0].argmax is not None:
        argmax = torch.stack([_of(part, "argmax") for part in parts]).gather(0, part[None])[0]
    return sums._replace(max=best, argmax=argmax)


def top_of_parts(scores: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest scores of [parts, B, H, Nq, topk] and their keys; parts are in the order of their keys."""
    if len(scores) == 1:
        return scores[0], keys[0]
    listed = scores.movedim(0, 3).flatten(3)
    # Of equal scores the first part has the first keys.
    best, order = listed.sort(dim=-1, descending=True, stable=True)
    kept = slice(0, scores.shape[-1])
    return best[..., kept], keys.movedim(0, 3).flatten(3).gather(-1, order[..., kept])


def _distance(parts: Sequence[Sums], shares: Shares) -> torch.Tensor | None:
    """Return means and variances over all keys: a variance is that inside the parts and that of their means."""
    if parts[0].distance is None:
        return None
    moments = torch.stack([_of(part, "distance") for part in parts])
    made = []
    for mean, variance in ((moments[:, 0], moments[:, 1]), (moments[:, 2], moments[:, 3])):
        whole = shares.mean(list(mean))
        made += [whole, shares.mean(list(variance + (mean - whole).square()))]
    return torch.stack(made)


def _sum(parts: Sequence[Sums], name: str) -> Any:
    values = [getattr(part, name) for part in parts]
    return None if values[0] is None else torch.stack(values).sum(0)


def _of(part: Sums, name: str) -> torch.Tensor:
    value = getattr(part, name)
    assert value is not None, name
    return value
