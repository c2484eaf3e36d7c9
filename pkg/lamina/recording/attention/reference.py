"""The obvious form: build the matrix, take its statistics."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lamina.recording.attention.inputs import Attention, known, lowest


def attention_statistics(attention: Attention, statistics: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return statistics of attention from its whole matrix, in the dtype of the queries (float32 at least).

    Takes and returns what `statistics.attention_statistics` does, in B H T S numbers of memory.
    """
    names = known(statistics)
    q, k = attention.q.to(attention.dtype), attention.k.to(attention.dtype)
    s = attention.scale * q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT
    if attention.softcap is not None:
        s = attention.softcap * torch.tanh(s / attention.softcap)
    own, keys = attention.positions()[:, None], torch.arange(s.shape[3], device=s.device)
    reach = torch.ones_like(s, dtype=torch.bool)
    if attention.causal:
        reach = reach & (keys <= own)
    for mask in attention.masks:
        if mask.dtype == torch.bool:
            reach = reach & mask
        else:
            s = s + mask
            reach = reach & (mask > lowest(mask))
    s = s.masked_fill(~reach, -torch.inf)
    p = s.softmax(-1)  # NaN where a query reaches no key
    empty = ~reach.any(-1)
    results = {
        "logsumexp": s.logsumexp(-1),
        "entropy": torch.special.entr(p).sum(-1),
        "max_score": s.amax(-1),
        "max_key": s.argmax(-1).masked_fill(empty, -1),
        "participation_ratio": 1 / p.square().sum(-1),
        "expected_score": torch.where(reach, p * s, 0).sum(-1).masked_fill(empty, torch.nan),
        "distance": (p * (own - keys).abs()).sum(-1),
        "previous": (p * (keys == own - 1)).sum(-1),
        "self": (p * (keys == own)).sum(-1),
        "next": (p * (keys == own + 1)).sum(-1),
        "sink": p[..., 0],
        "received": p.masked_fill(empty[..., None], 0).sum(-2),
    }
    return {name: results[name].transpose(1, 2) for name in names}
