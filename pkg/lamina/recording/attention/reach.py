"""What dense masks come to, where they are what most models use them for: hidden keys, causality, a window."""

from __future__ import annotations

from typing import NamedTuple

import torch

from lamina.recording.attention.inputs import Attention, lowest


class Reach(NamedTuple):
    """Whom queries see, without a matrix.

    Attributes:
        keys: How many keys there are to see: those behind are hidden from all queries. The last query stands at the
            last of these.
        left: How many keys before its own a query sees; None for all.
        right: How many keys behind its own a query sees; None for all.
        bias: [B or 1, H or 1, keys] in the dtype of the scores: what is added to the scores of a key, -inf where all
            queries are kept from it; None for 0.
    """

    keys: int
    left: int | None
    right: int | None
    bias: torch.Tensor | None


def reach_of(a: Attention) -> Reach | None:
    """Return what the masks of a call come to, or None if that is more than a window and a term a key.

    A mask with one row for all queries (by its size, or expanded) is a term a key. Others have to be of booleans, or of
    0 and what hides, and what they show together has to be all pairs of some keys, for each item and head, and a
    window, alike for all. This is exact: what is returned shows the very pairs that the masks show.

    Cost: reads masks of a row a query four times, without a copy of one; waits for a GPU.
    """
    T, S = a.shape[2:]
    terms, pairs = [], None
    left: int | None = None
    right = 0 if a.causal else None
    for mask in map(_once, a.masks):
        if mask.shape[2] == 1:
            terms.append(_term(mask[:, :, 0], a.dtype))
        elif (shown := _shown(mask)) is None:
            return None
        else:
            pairs = shown if pairs is None else pairs & shown
    first = S - T if a.first is None else a.first
    if pairs is not None:
        found = _window(pairs.expand(-1, -1, T, S), first)
        if found is None:
            return None
        keys, left, ahead = found
        right = ahead if right is None else right
        terms.append(_term(keys, a.dtype))
    keys = first + T
    bias = _sum(terms, S)
    behind = right == 0 or (bias is not None and bool((bias[..., keys:] == -torch.inf).all()))
    if not 0 <= keys <= S or (keys < S and not behind):
        return None
    bias = None if bias is None else bias[..., :keys]
    return Reach(
        keys,
        None if left is None or left >= keys - 1 else left,
        None if right is None or right >= keys - 1 - first else right,
        bias if bias is not None and bool(bias.any()) else None,
    )


def _once(mask: torch.Tensor) -> torch.Tensor:
    """Return a mask with four dimensions, of size 1 where it holds the same numbers again and again."""
    mask = mask[(None,) * (4 - mask.ndim)]
    return mask[tuple(slice(0, 1) if step == 0 else slice(None) for step in mask.stride())]


def _term(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as numbers to add."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)
    return mask.to(dtype).masked_fill(mask <= lowest(mask), -torch.inf)


def _sum(terms: list[torch.Tensor], keys: int) -> torch.Tensor | None:
    if not terms:
        return None
    total = sum(terms[1:], terms[0])
    return total.expand(*total.shape[:2], keys)


def _shown(mask: torch.Tensor) -> torch.Tensor | None:
    """Return which pairs a mask shows, or None if it adds something to their scores."""
    if mask.dtype == torch.bool:
        return mask
    hidden = mask <= lowest(mask)
    return ~hidden if bool((hidden | (mask == 0)).all()) else None


def _window(pairs: torch.Tensor, first: int) -> tuple[torch.Tensor, int | None, int | None] | None:
    """Return which keys are seen, [b, h, S], and how many before and behind a query's own; None if that is not all.

    Args:
        pairs: [b, h, T, S]: which pairs are seen.
        first: Where the first query stands.
    """
    T, S = pairs.shape[2:]
    keys, somewhere = pairs.any(2), pairs.flatten(0, 1).any(0)
    sees = somewhere.any(1)
    if not bool(sees.any()):
        return keys, None, None
    own = torch.arange(first, first + T, device=pairs.device)
    nearest, farthest = (side.to(torch.uint8).argmax(1) for side in (somewhere, somewhere.flip(1)))
    left, right = int((own - nearest)[sees].max()), int((S - 1 - farthest - own)[sees].max())
    if left < 0 or right < 0:
        return None
    return (keys, left, right) if _complete(pairs, keys, own, left, right) else None


def _complete(pairs: torch.Tensor, keys: torch.Tensor, own: torch.Tensor, left: int, right: int) -> bool:
    """Whether all pairs of these keys and this window are seen; as no others are, it takes counting them."""
    S = keys.shape[2]
    before = torch.nn.functional.pad(keys.cumsum(2), (1, 0))
    counts = before[..., (own + right + 1).clamp(0, S)] - before[..., (own - left).clamp(0, S)]
    return int(counts.sum()) == int(pairs.count_nonzero())
