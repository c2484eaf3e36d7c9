"""What attention is, one query at a time, in float64: nothing here is shared with the forms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from lamina_kernels.attention import (
    ALiBi,
    Attention,
    Cosine,
    Distance,
    Dot,
    KeyBias,
    RelativeBias,
    Sigmoid,
    Softmax,
    SquaredDistance,
    Statistics,
)

BLOCK = 128  # of block_mass
NAMES = ("lse", "entropy", "max", "argmax", "sum_p2", "expected_score", "distance", "received", "block_mass")
OF_A_SIGMOID = ("max", "argmax", "sum_p2", "received", "block_mass")


def truth(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> Attention:
    """Everything that `attend` can be asked for, in float64; `mask` is a dense one here, [B or 1, H or 1, Nq, Nk].

    Packed sequences are attended to one after the other.
    """
    if options.get("cu_seqlens_q") is not None:
        return _packed(q, k, v, options)
    q, k, v = (x.detach().double() for x in (q, k, v))
    (B, H, Nq, _), group = q.shape, q.shape[1] // k.shape[1]
    rows = [
        _query(q[b, h, i], k[b, h // group], v[b, h // group], (b, h, i), (B, H, Nq), options)
        for b in range(B)
        for h in range(H)
        for i in range(Nq)
    ]
    found = {name: torch.stack([row[name] for row in rows]).unflatten(0, (B, H, Nq)) for name in rows[0]}
    weights, share = found["weights"], options.get("share")
    blocks = torch.stack(
        [torch.stack([c.sum((2, 3)) for c in r.split(BLOCK, 3)], 2) for r in weights.split(BLOCK, 2)], 2
    )
    stats = Statistics(
        **{name: found.get(name) for name in ("lse", "entropy", "max", "argmax", "sum_p2", "expected_score")},
        distance=Distance(*(found[f"distance{n}"] for n in range(4))) if "lse" in found else None,
        targets={name: found[f"target {name}"] for name in options.get("targets") or {}},
        top_scores=found["top_scores"],
        top_keys=found["top_keys"],
        received=weights.sum(2),
        block_mass=blocks,
        keys_above=None if share is None else (weights > share).sum(3),
    )
    return Attention(found["out"], stats, "truth")


def _query(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    where: tuple[int, int, int],
    shape: tuple[int, int, int],
    options: dict[str, Any],
) -> dict[str, torch.Tensor]:
    (b, h, i), Nk = where, len(keys)
    place = i + (0 if options.get("align") == "top-left" else Nk - shape[2])
    d = place - torch.arange(Nk)
    s = _scores(q, keys, d, b, h, shape, options).masked_fill(~_seen(d, b, h, i, options), -math.inf)
    seen, normalizer = s > -math.inf, options.get("normalizer", Softmax())
    found = {"max": s.max() if Nk else torch.tensor(-math.inf, dtype=torch.float64)}
    if isinstance(normalizer, Sigmoid):
        p, lost = 1 / (1 + torch.exp(-s)), 0.0
    else:
        sink = -math.inf if normalizer.sink is None else float(_of_head(normalizer.sink, h))
        largest = max(float(found["max"]), sink)
        e = (s - (largest if largest > -math.inf else 0)).exp()
        mass = float(e.sum()) + (math.exp(sink - largest) if largest > -math.inf else 0)
        lse = math.log(mass) + largest if mass else -math.inf
        p = e / mass if mass else e
        lost = math.exp(sink - largest) / mass if mass else 0.0
        whole = torch.cat([p[p > 0], torch.tensor([lost] if lost else [], dtype=torch.float64)])
        found["lse"] = torch.tensor(lse, dtype=torch.float64)
        found["entropy"] = -(whole * whole.log()).sum()
        found["expected_score"] = (p[seen] * s[seen]).sum() + (lost * sink if lost else 0)
        for n, x in enumerate((d.double(), d.double().abs())):
            found[f"distance{2 * n}"], found[f"distance{2 * n + 1}"] = _moments(p, x)
    ranked = sorted((j for j in range(Nk) if seen[j]), key=lambda j: (-float(s[j]), j))
    top = [*ranked, *[-1] * options.get("topk", 0)][: options.get("topk", 0)]
    found |= {
        "weights": p,
        "out": p @ values,
        "sum_p2": (p**2).sum() + lost**2,
        "argmax": torch.tensor(ranked[0] if ranked else -1),
        "top_keys": torch.tensor(top, dtype=torch.int64),
        "top_scores": torch.tensor([float(s[j]) if j >= 0 else -math.inf for j in top], dtype=torch.float64),
    }
    for name, target in (options.get("targets") or {}).items():
        found[f"target {name}"] = _target(p, target, place, b, h, i, shape)
    return found


def _moments(p: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance under the weights of the keys, of which a sink is none."""
    p = p / p.sum() if p.sum() > 0 else p
    mean = (p * x).sum()
    return mean, (p * (x - mean) ** 2).sum()


def _seen(d: torch.Tensor, b: int, h: int, i: int, options: dict[str, Any]) -> torch.Tensor:
    left, right = options.get("window") or (None, None)
    mask, seen = options.get("mask"), torch.ones_like(d, dtype=torch.bool)
    if options.get("causal"):
        seen &= d >= 0
    if left is not None:
        seen &= d <= left
    if right is not None:
        seen &= d >= -right
    return seen if mask is None else seen & mask[b % mask.shape[0], h % mask.shape[1], i]


def _scores(
    q: torch.Tensor,
    keys: torch.Tensor,
    d: torch.Tensor,
    b: int,
    h: int,
    shape: tuple[int, int, int],
    options: dict[str, Any],
) -> torch.Tensor:
    """The scores of one query, written as the formulas of the docs are."""
    score, normalizer, bias = options.get("score", Dot()), options.get("normalizer", Softmax()), options.get("bias")
    if isinstance(score, Dot):
        scale = options.get("scale")
        s = (q * keys).sum(1) * (len(q) ** -0.5 if scale is None else scale)
    elif isinstance(score, Cosine):
        s = torch.cosine_similarity(q[None], keys, eps=1e-300) / _of_head(score.temperature, h)
    else:
        assert isinstance(score, SquaredDistance)
        s = -((q - keys) ** 2).sum(1) / (2 * _of_head(score.bandwidth, h) ** 2)
    if isinstance(bias, KeyBias):
        s = s + bias.values.double().expand(shape[0], shape[1], len(keys))[b, h]
    if isinstance(normalizer, Sigmoid):
        s = s + _of_head(normalizer.bias, h)
    elif normalizer.softcap is not None:
        s = normalizer.softcap * torch.tanh(s / normalizer.softcap)
    if isinstance(bias, ALiBi):
        s = s - _of_head(bias.slopes, h) * d.abs()
    if isinstance(bias, RelativeBias):
        reach = bias.table.shape[1] // 2
        s = s + torch.stack([bias.table[h, reach + min(max(int(x), -reach), reach)].double() for x in d])
    return s


def _of_head(value: Any, h: int) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().double().reshape(-1)[h if value.numel() > 1 else 0]


def _target(p: torch.Tensor, target: Any, place: int, b: int, h: int, i: int, shape: Sequence[int]) -> torch.Tensor:
    if isinstance(target, int):
        j = place + target
    else:
        row = target.expand(shape[0], shape[1], target.shape[-1])[b, h]
        if target.dtype == torch.bool:
            return p[row].sum()
        j = int(row[i])
    return p[j] if 0 <= j < len(p) else torch.zeros((), dtype=torch.float64)


def _packed(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> Attention:
    """One sequence after the other, each with its part of what is said of rows."""
    starts_q, starts_k = (options[f"cu_seqlens_{side}"].tolist() for side in "qk")
    rest = {name: value for name, value in options.items() if not name.startswith(("cu_seqlens", "max_seqlen"))}
    parts, received = [], []
    for s in range(len(starts_q) - 1):
        of_q, of_k = (slice(starts[s], starts[s + 1]) for starts in (starts_q, starts_k))
        own = dict(rest)
        if isinstance(rest.get("bias"), KeyBias):
            own["bias"] = KeyBias(rest["bias"].values[..., of_k])
        own["targets"] = {
            name: target if isinstance(target, int) else target[..., of_k if target.dtype == torch.bool else of_q]
            for name, target in (rest.get("targets") or {}).items()
        }
        if of_q.start == of_q.stop:
            received.append(torch.zeros(q.shape[1], of_k.stop - of_k.start, dtype=torch.float64))
            continue
        parts.append(truth(*(x[at].transpose(0, 1)[None] for x, at in ((q, of_q), (k, of_k), (v, of_k))), **own))
        received.append(parts[-1].stats.received[0])

    def joined(values: Sequence[Any]) -> Any:
        return None if values[0] is None else torch.cat([value[0] for value in values], 1)

    stats = [part.stats for part in parts]
    names = ("lse", "entropy", "max", "argmax", "sum_p2", "expected_score", "top_scores", "top_keys", "keys_above")
    whole = Statistics(
        **{name: joined([getattr(s, name) for s in stats]) for name in names},
        distance=Distance(*(joined(x) for x in zip(*(s.distance for s in stats), strict=True)))
        if stats[0].distance
        else None,
        targets={name: joined([s.targets[name] for s in stats]) for name in stats[0].targets},
        received=torch.cat(received, 1),
    )
    return Attention(torch.cat([part.out[0].transpose(0, 1) for part in parts]), whole, "truth")
