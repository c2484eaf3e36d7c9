"""The form with flat memory: tiles of queries and keys, a running maximum, sums that are rescaled when it rises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from lamina.recording.attention.inputs import Attention, known, lowest

_TILE = (128, 512)
_SCORES = 1 << 21  # of a tile over all heads: so many batch items go together

# exp of it is 0 in float64 too, and 0 times it is 0, which is not so for -inf.
_FAR = -1e4


def attention_statistics(
    attention: Attention, statistics: Iterable[str], *, tile: tuple[int, int] = _TILE
) -> dict[str, torch.Tensor]:
    """Return statistics of attention under masks of all kinds, in memory for a tile of all heads.

    Takes and returns what `statistics.attention_statistics` does.

    Args:
        attention: Queries, keys and masks.
        statistics: Names out of `STATISTICS`.
        tile: How many queries and keys are compared at a time.
    """
    names = known(statistics)
    a = attention
    B, H, T, S = a.shape
    rows = {
        name: a.q.new_empty(B, T, H, dtype=torch.int64 if name == "max_key" else a.dtype).transpose(1, 2)
        for name in names
        if name != "received"
    }
    received = a.q.new_zeros(B, S, H, dtype=a.dtype).transpose(1, 2) if "received" in names else None
    for items in _slices(0, B, max(1, _SCORES // max(1, H * min(T, tile[0]) * min(S, tile[1])))):
        for queries in _slices(0, T, tile[0]):
            found, top, mass = _of_rows(a, tuple(rows), items, queries, tile[1])
            for name, value in found.items():
                rows[name][items, :, queries] = value
            if received is not None:
                _hand_out(a, received, top, mass, items, queries, tile[1])
    results = rows if received is None else rows | {"received": received}
    return {name: results[name].transpose(1, 2) for name in names}


def _of_rows(
    a: Attention, names: tuple[str, ...], items: slice, queries: slice, width: int
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return statistics of a block of queries, their largest score, and the sum of exp(score - that): all [b, H, t]."""
    own = a.positions()[queries]
    shape = (items.stop - items.start, a.shape[1], len(own))
    top = a.q.new_full(shape, -torch.inf, dtype=a.dtype)
    # Sums over keys of p, p z, p^2 and p |distance|, with z the score less the running maximum and p = exp(z).
    mass, spread, square, path = (torch.zeros_like(top) for _ in range(4))
    key = top.new_full(shape, -1, dtype=torch.int64)
    targets = {"previous": own - 1, "self": own, "next": own + 1, "sink": torch.zeros_like(own)}
    hit = {name: top.clone() for name in targets if name in names}
    for keys in _in_reach(a, queries, width):
        s = _scores(a, items, queries, keys)
        high, where = s.max(-1)
        key = torch.where(high > top, where + keys.start, key)
        for name in hit:
            at = targets[name] - keys.start
            inside = (at >= 0) & (at < s.shape[3])
            index = at.clamp(0, s.shape[3] - 1)[:, None].expand(*shape, 1)
            hit[name] = torch.where(inside, s.gather(3, index)[..., 0], hit[name])
        risen = torch.maximum(top, high)
        base = risen.masked_fill(risen == -torch.inf, 0)
        z = s.sub_(base[..., None]).clamp_min_(_FAR)
        p = z.exp()
        step = _rise(top, base)
        decay = step.exp()
        if "entropy" in names or "expected_score" in names:
            spread = decay * (spread + step * mass) + (p * z).sum(-1)
        if "participation_ratio" in names:
            square = decay.square() * square + p.square().sum(-1)
        if "distance" in names:
            far = (own[:, None] - _span(keys, own)).abs().to(a.dtype)
            path = decay * path + (p * far).sum(-1)
        mass = decay * mass + p.sum(-1)
        top = risen
    # No division by zero raises: a query that reaches nothing gets 0 / 0.
    results = {
        "logsumexp": top + mass.log(),
        "entropy": mass.log() - spread / mass,
        "max_score": top,
        "max_key": key,
        "participation_ratio": mass.square() / square,
        "expected_score": top + spread / mass,
        "distance": path / mass,
        **{name: (score - top).exp() / mass for name, score in hit.items()},
    }
    return {name: results[name] for name in names}, top, mass


def _rise(top: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """Return the old maximum less the new one: by exp of it the sums so far have to shrink."""
    return (top - base).clamp_min(_FAR)


def _hand_out(
    a: Attention,
    received: torch.Tensor,
    top: torch.Tensor,
    mass: torch.Tensor,
    items: slice,
    queries: slice,
    width: int,
) -> None:
    """Add to each key [B, H, S] what a block of queries gives it, once their sums are known."""
    # A query that reaches nothing gives nothing. exp(score - logsumexp) would lose the digits of a large logsumexp.
    top = top.masked_fill(top == -torch.inf, 0)
    share = (1 / mass).masked_fill(mass == 0, 0)[:, :, None]
    for keys in _in_reach(a, queries, width):
        p = _scores(a, items, queries, keys).sub_(top[..., None]).exp_()
        received[items, :, keys] += (share @ p)[:, :, 0]


def _scores(a: Attention, items: slice, queries: slice, keys: slice) -> torch.Tensor:
    """Return a tile of scores [b, H, t, s], -inf where a key is out of reach; the caller may write into it."""
    heads = a.k.shape[1]
    q = a.q[items, :, queries].to(a.dtype).mul(a.scale).unflatten(1, (heads, -1))
    k = a.k[items, :, keys].to(a.dtype)
    # The queries that share a head of keys stand below each other: one product for the group.
    s = (q.flatten(2, 3) @ k.mT).unflatten(2, q.shape[2:4]).flatten(1, 2)
    if a.softcap is not None:
        s = s.div_(a.softcap).tanh_().mul_(a.softcap)
    for mask in a.masks:
        part = _cut(mask, items, queries, keys)
        if mask.dtype == torch.bool:
            s.masked_fill_(~part, -torch.inf)
        else:
            s.add_(part).masked_fill_(part <= lowest(mask), -torch.inf)
    own = a.positions()[queries]
    if a.causal:
        s.masked_fill_(_span(keys, own) > own[:, None], -torch.inf)
    return s


def _cut(mask: torch.Tensor, items: slice, queries: slice, keys: slice) -> torch.Tensor:
    mask = mask[(None,) * (4 - mask.ndim)]
    parts = (items, slice(None), queries, keys)
    return mask[tuple(part if size > 1 else slice(None) for part, size in zip(parts, mask.shape, strict=True))]


def _in_reach(a: Attention, queries: slice, width: int) -> Iterator[slice]:
    """Yield the blocks of keys, without those that causality hides from all of the queries."""
    T, S = a.shape[2:]
    first = S - T if a.first is None else a.first
    return _slices(0, min(S, max(0, first + queries.stop)) if a.causal else S, width)


def _span(keys: slice, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(keys.start, keys.stop, device=like.device)


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(at, min(at + size, stop)) for at in range(start, stop, size))
