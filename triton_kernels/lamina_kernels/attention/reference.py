"""The obvious form: all scores at once, in float32 or float64, differentiated by torch itself."""

from __future__ import annotations

import math

import torch

from lamina_kernels.attention.gradients import NO_KEY
from lamina_kernels.attention.places import distance_bias, in_window, places
from lamina_kernels.attention.problem import MASS_BLOCK, Divergences, Masses, Problem, Sums, Wanted


def forward(p: Problem) -> Sums:
    """Return all sums that the problem's tier and `topk` ask for."""
    s, seen, d = scores(p)
    best, argmax, logs, lse = _softmax(s, seen)
    weights = (s.sigmoid() if p.sigmoid else logs.exp()).masked_fill(~seen, 0)
    v = _by_query_head(p.v.to(p.dtype), p)
    sums = Sums((weights @ v).to(p.v.dtype), max=best)
    if not p.sigmoid:
        sums = sums._replace(lse=lse)
    if p.tier >= 1 and not p.sigmoid:
        expected = (weights * s.masked_fill(~seen, 0)).sum(-1)
        sums = sums._replace(entropy=-(weights * logs).sum(-1), expected_score=expected)
    if p.tier >= 2:
        sums = sums._replace(argmax=_in_sequence(p, argmax), sum_p2=weights.square().sum(-1))
        if not p.sigmoid:
            sums = sums._replace(distance=torch.stack([*_moments(weights, d), *_moments(weights, d.abs())]))
    if p.tier >= 3 and p.columns is not None:
        sums = sums._replace(columns=weights @ p.columns.to(p.dtype))
    if p.topk:
        sums = sums._replace(**_top(p, s))
    return sums


def scores(p: Problem) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return s_ij, -inf where query i does not see key j, and whether it does: [B, H, Nq, Nk]; and d_ij, [Nq, Nk].

    A key whose term is -inf is seen by nobody.
    """
    at = places(p)
    d = at.queries[:, None] - at.keys
    products = p.q.to(p.dtype) @ _by_query_head(p.k.to(p.dtype), p).mT
    key_scale, key_bias = (None if x is None else x[:, :, None] for x in (p.key_scale, p.key_bias))
    s = scored(p, products, key_scale, key_bias, d[None, None])
    seen = in_window(p, d) & (at.query_sequences[:, None] == at.key_sequences)
    if p.mask is not None:
        seen = seen & p.mask.dense()
    if key_bias is not None:
        seen = seen & (key_bias != -torch.inf)
    seen = seen.expand(s.shape)
    return s.masked_fill(~seen, -torch.inf), seen, d


def scored(
    p: Problem,
    products: torch.Tensor,
    key_scale: torch.Tensor | None,
    key_bias: torch.Tensor | None,
    d: torch.Tensor,
) -> torch.Tensor:
    """Return the scores of products <q_i, k_j>.

    Args:
        p: The problem.
        products: [B, H, Nq, keys], of any keys.
        key_scale: c of the keys, broadcast against `products`.
        key_bias: w of the keys, likewise.
        d: i + shift - j, likewise.
    """
    s = products * p.scale
    if p.query_scale is not None:
        s = s * p.query_scale[..., None]
    if key_scale is not None:
        s = s * key_scale
    if p.query_bias is not None:
        s = s + p.query_bias[..., None]
    if key_bias is not None:
        s = s + key_bias
    if p.softcap is not None:
        s = p.softcap * torch.tanh(s / p.softcap)
    b = distance_bias(p, d)
    return s if b is None else s + b


def mass(p: Problem, lse: torch.Tensor | None, wanted: Wanted) -> Masses:
    """Return what the keys receive, by weights whose lse is given."""
    s, seen, _ = scores(p)
    if lse is None:
        weights = s.sigmoid().masked_fill(~seen, 0)
    else:
        gone = ~seen | (lse == -torch.inf)[..., None]
        weights = (s.masked_fill(gone, 0) - lse[..., None].masked_fill(gone, 0)).exp().masked_fill(gone, 0)
    masses = Masses()
    if wanted.received:
        masses = masses._replace(received=weights.sum(2))
    if wanted.blocks:
        rows, keys = (-n % MASS_BLOCK for n in weights.shape[2:])
        padded = torch.nn.functional.pad(weights, (0, keys, 0, rows))
        masses = masses._replace(
            blocks=padded.unflatten(3, (-1, MASS_BLOCK)).unflatten(2, (-1, MASS_BLOCK)).sum((3, 5))
        )
    if wanted.share is not None:
        masses = masses._replace(above=(weights > wanted.share).sum(-1))
    return masses


def divergence(first: Problem, second: Problem, kind: str) -> Divergences:
    """Return the divergence of the weights of two problems, and the means that its gradients need."""
    (s, seen, _), (t, other_seen, _) = scores(first), scores(second)
    (_, _, log_p, lse), (_, _, log_r, other_lse) = _softmax(s, seen), _softmax(t, other_seen)
    log_p, log_r = log_p.masked_fill(~seen, -NO_KEY), log_r.masked_fill(~other_seen, -NO_KEY)
    p, r = log_p.exp(), log_r.exp()
    if kind == "kl":
        alone = seen & ~other_seen
        value = (p * (log_p - log_r).masked_fill(alone, 0)).sum(-1).masked_fill(alone.any(-1), torch.inf)
        value = _not_negative(value)
        return Divergences(value, lse, other_lse, value.detach(), -p.sum(-1).detach())
    if kind == "js":
        log_middle = torch.logaddexp(log_p, log_r) - math.log(2)
        by_p, by_r = (log_p - log_middle) / 2, (log_r - log_middle) / 2
    else:
        by_p = (p - r).sign() / 2
        by_r = -by_p
    part, other_part = (p * by_p).sum(-1), (r * by_r).sum(-1)
    return Divergences(_not_negative(part + other_part), lse, other_lse, part.detach(), other_part.detach())


def _not_negative(x: torch.Tensor) -> torch.Tensor:
    """Return 0 where rounding made less of it; the gradient is that of x."""
    return x - x.detach().clamp_max(0)


def _by_query_head(x: torch.Tensor, p: Problem) -> torch.Tensor:
    """Return the rows that each query head looks at, [B, H, Nk, D] of [B, Hk, Nk, D]."""
    return x.repeat_interleave(p.q.shape[1] // x.shape[1], 1)


def _softmax(s: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the largest score and its key, the first of equals; log p, 0 where not seen; and lse.

    Scores are taken relative to the largest one, so that logs are right where scores are large. A query that sees no
    key has -inf, -1 and -inf, and no gradient.
    """
    if s.shape[-1] == 0:
        nothing = s.new_full(s.shape[:-1], -torch.inf)
        return nothing, nothing.new_full(nothing.shape, -1, dtype=torch.int64), s, nothing
    dead = ~seen.any(-1)
    best, key = s.masked_fill(dead[..., None], 0).max(-1)
    z = s.masked_fill(dead[..., None], 0) - best.detach()[..., None]
    log_mass = z.logsumexp(-1)
    # The log of a score that is not seen is left out, not multiplied by a weight of 0.
    logs = (z - log_mass[..., None]).masked_fill(~seen, 0)
    lse = (best.detach() + log_mass).masked_fill(dead, -torch.inf)
    return best.masked_fill(dead, -torch.inf), key.masked_fill(dead, -1), logs, lse


def _moments(weights: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of x, [Nq, Nk], under the weights; 0 for a query that sees no key."""
    mean = (weights * x).sum(-1)
    return mean, (weights * (x - mean[..., None]).square()).sum(-1)


def _in_sequence(p: Problem, rows: torch.Tensor) -> torch.Tensor:
    """Return the numbers of keys in their sequences, -1 for -1."""
    numbers = torch.nn.functional.pad(places(p).keys, (0, 1), value=-1)
    return numbers[rows]


def _top(p: Problem, s: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the largest scores and their keys, -inf and -1 behind the last key that is seen; not differentiated."""
    best, keys = s.detach().sort(dim=-1, descending=True, stable=True)
    best, keys = (x[..., : p.topk] for x in (best, keys))
    missing = p.topk - best.shape[-1]
    keys = _in_sequence(p, keys.masked_fill(best == -torch.inf, -1))
    return {
        "top_scores": torch.nn.functional.pad(best, (0, missing), value=-torch.inf),
        "top_keys": torch.nn.functional.pad(keys, (0, missing), value=-1),
    }
