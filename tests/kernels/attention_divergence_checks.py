"""What holds for `divergence` in every form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from lamina_kernels.attention import ALiBi, SquaredDistance, attend, divergence
from tests.kernels import attention_faults as faults  # noqa: F401
from tests.kernels.attention_checks import close
from tests.kernels.hsic_checks import normal

Diverge = Callable[..., Any]


def _rows(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    shapes = ((2, 4, 9, 16), (2, 2, 12, 16), (2, 4, 9, 24), (2, 1, 12, 24))
    return [normal(*shape, seed=80 + n, dtype=dtype) for n, shape in enumerate(shapes)]


def agrees_with_dense_patterns(diverge: Diverge, dtype: torch.dtype = torch.float32, tolerance: float = 1e-4) -> None:
    q, k, other_q, other_k = _rows(dtype)
    distance = torch.arange(9)[:, None] + 3 - torch.arange(12)
    near = (distance <= 4) & (distance >= -1)
    for options, seen in (({}, distance > -99), ({"causal": True}, distance >= 0), ({"window": (4, 1)}, near)):
        p, r = (
            (a.double() @ b.double().repeat_interleave(4 // b.shape[1], 1).mT / a.shape[3] ** 0.5)
            .masked_fill(~seen, -math.inf)
            .softmax(-1)
            for a, b in ((q, k), (other_q, other_k))
        )
        m = (p + r) / 2

        def kl(a: torch.Tensor, b: torch.Tensor, seen: torch.Tensor = seen) -> torch.Tensor:
            return torch.where(seen, a * (a / b).log(), 0).sum(-1)

        for kind, wanted in (("kl", kl(p, r)), ("js", (kl(p, m) + kl(r, m)) / 2), ("tv", (p - r).abs().sum(-1) / 2)):
            got = diverge(q, k, other_q, other_k, kind=kind, **options).value
            close(got, wanted, kind, rtol=tolerance, atol=tolerance)


def a_model_does_not_diverge_from_itself(diverge: Diverge) -> None:
    q, k, *_ = _rows()
    for kind in ("kl", "js", "tv"):
        got = diverge(q, k, q, k, kind=kind, score=SquaredDistance(3.0), bias=ALiBi(torch.ones(4)))
        close(got.value, torch.zeros(2, 4, 9), kind, atol=1e-6)


def disjoint_attention_diverges_as_far_as_it_can(diverge: Diverge) -> None:
    # One looks at key 0 alone, the other at key 1, by scores that are 300 apart.
    q = torch.zeros(1, 1, 2, 16)
    q[..., 0] = 300
    k, other = torch.zeros(1, 1, 2, 16), torch.zeros(1, 1, 2, 16)
    k[0, 0, 0, 0], other[0, 0, 1, 0] = 1, 1
    for kind, wanted in (("kl", 300.0), ("js", math.log(2)), ("tv", 1.0)):
        got = diverge(q, k, q, other, kind=kind, scale=1.0).value
        close(got, torch.full((1, 1, 2), wanted), kind, rtol=1e-5)


def two_keys_by_hand(diverge: Diverge) -> None:
    # p = (1/2, 1/2) and r = (3/4, 1/4).
    q = torch.zeros(1, 1, 1, 16)
    q[..., 0] = 1
    k, other = torch.zeros(1, 1, 2, 16), torch.zeros(1, 1, 2, 16)
    other[0, 0, 0, 0] = math.log(3)
    kl = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    m = (0.625, 0.375)
    half = [0.5 * math.log(0.5 / x) for x in m], [0.75 * math.log(0.75 / m[0]), 0.25 * math.log(0.25 / m[1])]
    for kind, wanted in (("kl", kl), ("js", (sum(half[0]) + sum(half[1])) / 2), ("tv", 0.25)):
        close(diverge(q, k, q, other, kind=kind, scale=1.0).value, torch.full((1, 1, 1), wanted), kind, rtol=1e-5)


def queries_that_see_nothing_do_not_diverge(diverge: Diverge) -> None:
    q, k, other = normal(1, 1, 6, 16, seed=1), normal(1, 1, 4, 16, seed=2), normal(1, 1, 4, 16, seed=3)
    for kind in ("kl", "js", "tv"):
        leaf = q.clone().requires_grad_()
        value = diverge(leaf, k, q, other, kind=kind, causal=True).value
        assert not value[0, 0, :2].any()
        assert value[0, 0, 3:].all()
        value.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def known_log_sum_exps_change_nothing(diverge: Diverge) -> None:
    """Values and gradients by log-sum-exps that `attend` returned, attached to the same rows; some see no key."""
    leaves = [rows.requires_grad_() for rows in _rows()]
    few = [rows[:, :, :5] if n % 2 else rows for n, rows in enumerate(leaves)]
    near: dict[str, Any] = {"window": (4, 1)}
    for kind, rows, options in (("kl", leaves, near), ("js", few, {"causal": True}), ("tv", leaves, {"scale": 2.0})):
        lse = [attend(*pair, statistics=("lse",), **options).stats.lse for pair in (rows[:2], rows[2:])]
        assert all(x is not None and x.requires_grad for x in lse)
        exact: Any = divergence(*rows, kind=kind, impl="reference", **options)  # pyright: ignore
        found = [exact.value, diverge(*rows, kind=kind, lse=lse, **options).value]
        close(found[1], found[0], kind, rtol=1e-4, atol=2e-6)
        weights = normal(2, 4, 9, seed=90)
        gradients = (torch.autograd.grad(x, leaves, weights) for x in found)
        for name, wanted, got in zip(("q", "k", "other_q", "other_k"), *gradients, strict=True):
            close(got, wanted, f"{kind}: {name}", rtol=1e-4, atol=1e-5)


def packed_sequences_diverge_as_they_do_alone(diverge: Diverge) -> None:
    q, k, other = (normal(n, 2, 16, seed=4 + n) for n in (9, 12, 13))
    other = other[:12]
    starts_q, starts_k = (torch.tensor(x, dtype=torch.int32) for x in ([0, 2, 9], [0, 5, 12]))
    options: dict[str, Any] = {"causal": True, "cu_seqlens_q": starts_q, "cu_seqlens_k": starts_k}
    got = diverge(q, k, q, other, kind="js", **options).value
    lse = tuple(attend(q, keys, statistics=("lse",), **options).stats.lse for keys in (k, other))
    close(diverge(q, k, q, other, kind="js", lse=lse, **options).value, got, rtol=1e-4, atol=1e-6)
    alone = []
    for a, b in ((slice(0, 2), slice(0, 5)), (slice(2, 9), slice(5, 12))):
        rows = (x[at].transpose(0, 1)[None] for x, at in ((q, a), (k, b), (q, a), (other, b)))
        alone.append(diverge(*rows, kind="js", causal=True).value[0])
    close(got, torch.cat(alone, 1))


TRUTHS = [
    agrees_with_dense_patterns,
    a_model_does_not_diverge_from_itself,
    disjoint_attention_diverges_as_far_as_it_can,
    two_keys_by_hand,
    queries_that_see_nothing_do_not_diverge,
    known_log_sum_exps_change_nothing,
    packed_sequences_diverge_as_they_do_alone,
]
