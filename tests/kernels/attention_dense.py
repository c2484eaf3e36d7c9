"""Attention and all its statistics with whole matrices, which shares nothing with the product but `Problem`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from lamina_kernels.attention.problem import Problem, Sums


class Dense(NamedTuple):
    """The matrices [B, H, Nq, Nk] of an attention, and what is summed of them."""

    products: torch.Tensor
    capped: torch.Tensor
    scores: torch.Tensor
    p: torch.Tensor
    distance: torch.Tensor
    buckets: torch.Tensor
    sums: Sums


def dense(problem: Problem, seen: torch.Tensor, d: torch.Tensor | None = None) -> Dense:
    """Compute in the dtype of q; `seen` is [..., Nq, Nk], and d the distances of packed sequences."""
    heads = problem.q.shape[1] // problem.k.shape[1]
    k, v = (rows.repeat_interleave(heads, 1) for rows in (problem.k, problem.v))
    products = problem.q @ k.mT
    s = products * problem.scale
    if problem.query_scale is not None:
        s = s * problem.query_scale[..., None]
    if problem.key_scale is not None:
        s = s * problem.key_scale[..., None, :]
    if problem.query_bias is not None:
        s = s + problem.query_bias[..., None]
    if problem.key_bias is not None:
        s = s + problem.key_bias[..., None, :]
    if problem.softcap is not None:
        s = problem.softcap * torch.tanh(s / problem.softcap)
    capped = s
    queries, keys = products.shape[-2:]
    shift = keys - queries if problem.bottom_right else 0
    if d is None:
        d = torch.arange(queries)[:, None] + shift - torch.arange(keys)
    buckets = d
    if problem.slopes is not None:
        s = s - problem.slopes[:, None, None] * d.abs()
    if problem.table is not None:
        reach = problem.table.shape[1] // 2
        buckets = d.clamp(-reach, reach) + reach
        s = s + problem.table[:, buckets]
    d = d.to(s.dtype)
    seen = seen.expand(s.shape)
    some = seen.any(-1)
    s = s.masked_fill(~seen, 0)
    if problem.sigmoid:
        p = torch.where(seen, torch.sigmoid(s), 0)
        lse = None
    else:
        # A query that sees nothing has no weights, and passes no gradient.
        masked = s.masked_fill(~seen, -torch.inf).masked_fill(~some[..., None], 0)
        p = torch.softmax(masked, -1) * some[..., None]
        lse = torch.logsumexp(masked, -1).masked_fill(~some, -torch.inf)
    argmax = s.masked_fill(~seen, -torch.inf).argmax(-1)
    largest = s.gather(-1, argmax[..., None])[..., 0].masked_fill(~some, -torch.inf)
    argmax = argmax.masked_fill(~some, -1)
    columns = None if problem.columns is None else p @ problem.columns.to(p.dtype)
    sums = Sums(p.to(v.dtype) @ v, lse, largest, argmax=argmax, sum_p2=(p * p).sum(-1), columns=columns)
    if lse is not None:
        mean, mean_abs = (p * d).sum(-1), (p * d.abs()).sum(-1)
        sums = sums._replace(
            entropy=-(p * torch.where(seen, s - lse.masked_fill(~some, 0)[..., None], 0)).sum(-1),
            expected_score=torch.where(seen, p * s, 0).sum(-1),
            distance=torch.stack(
                [
                    mean,
                    (p * (d - mean[..., None]) ** 2).sum(-1),
                    mean_abs,
                    (p * (d.abs() - mean_abs[..., None]) ** 2).sum(-1),
                ]
            ),
        )
    return Dense(products, capped, s, p, d, buckets, sums)


def problems() -> dict[str, tuple[Problem, torch.Tensor]]:
    """Problems in float64 that between them have every part, and what their queries see."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    b, h, nq, nk, d, dv = 2, 4, 7, 9, 5, 3
    q, k, v = normal(b, h, nq, d), normal(b, 2, nk, d), normal(b, 2, nk, dv)
    everything = torch.ones(nq, nk, dtype=torch.bool)
    causal = everything.tril(nk - nq)
    some = torch.rand(b, h, nq, nk, generator=generator) < 0.6
    some[0, 1, 3] = False
    factors: dict[str, Any] = {
        "query_scale": normal(b, h, nq).exp(),
        "key_scale": normal(b, h, nk).exp(),
        "query_bias": normal(b, h, nq),
        "key_bias": normal(b, h, nk),
    }
    columns = normal(b, 1, nk, 2)
    return {
        "plain": (Problem(q, k, v, scale=0.3), everything),
        "causal": (Problem(q, k, v, scale=0.3, causal=True, columns=columns), causal),
        "masked": (Problem(q, k, v, scale=0.3, columns=columns), some),
        "scaled": (Problem(q, k, v, scale=0.3, **factors), some),
        "capped": (Problem(q, k, v, scale=0.7, softcap=1.3, slopes=normal(h).abs(), **factors), some),
        "biased": (Problem(q, k, v, scale=0.3, table=normal(h, 7), bottom_right=False), some),
        "sigmoid": (Problem(q, k, v, scale=0.3, sigmoid=True, softcap=2.0, columns=columns, **factors), some),
    }
