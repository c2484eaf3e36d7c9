"""The largest scores of rows and their keys, a tile at a time."""

from __future__ import annotations

import torch

# Torch finds a maximum twenty times as fast as its place: the place is sought in one group of so many.
GROUP = 32


def largest(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the largest number of each row and its place, the first of equals."""
    whole = s.shape[-1] // GROUP * GROUP
    if whole <= GROUP:
        return s.max(-1)
    groups = s[..., :whole].unflatten(-1, (-1, GROUP))
    high, group = groups.amax(-1).max(-1)
    inside = groups.gather(-2, group[..., None, None].expand(*group.shape, 1, GROUP))
    place = inside[..., 0, :].argmax(-1).add_(group, alpha=GROUP)
    if whole == s.shape[-1]:
        return high, place
    tail, where = s[..., whole:].max(-1)
    return torch.maximum(high, tail), torch.where(tail > high, where + whole, place)


class Top:
    """The k largest scores of rows so far, and their keys; equal scores by key.

    Attributes:
        scores: [items, rows, k], falling, -inf where a row has seen fewer.
        keys: [items, rows, k] int64, -1 there.
    """

    def __init__(self, shape: tuple[int, ...], k: int, dtype: torch.dtype, device: torch.device) -> None:
        self.scores = torch.full((*shape, k), -torch.inf, dtype=dtype, device=device)
        self.keys = torch.full((*shape, k), -1, dtype=torch.int64, device=device)

    def add(self, s: torch.Tensor, first: int) -> None:
        """Take a tile of scores [items, rows, keys], whose keys count from `first`, and overwrite it."""
        scores, keys = [self.scores], [self.keys]
        for _ in range(min(self.scores.shape[-1], s.shape[-1])):
            high, key = (x[..., None] for x in largest(s))
            s.scatter_(-1, key, -torch.inf)
            scores.append(high)
            keys.append((key + first).masked_fill_(high == -torch.inf, -1))
        # Keys come in rising order, so that a stable sort keeps the first of equals.
        best, order = torch.cat(scores, -1).sort(dim=-1, descending=True, stable=True)
        k = self.scores.shape[-1]
        self.scores, self.keys = best[..., :k], torch.cat(keys, -1).gather(-1, order[..., :k])
