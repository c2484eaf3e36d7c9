"""The public face of `attend`: the choice of a form, what stands around its pass, the named result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch

from lamina_kernels import dispatch
from lamina_kernels.attention import arguments, reference
from lamina_kernels.attention.biases import Bias
from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.normalizers import Normalizer, Softmax
from lamina_kernels.attention.op import attend as first_pass
from lamina_kernels.attention.op_mass import mass as second_pass
from lamina_kernels.attention.problem import Masses, Problem, Sums, Wanted
from lamina_kernels.attention.scores import Dot, Score
from lamina_kernels.attention.states import with_sink
from lamina_kernels.attention.statistics import Distance, Statistics, checked_names, tier_of
from lamina_kernels.attention.support import DROPOUT, refusal_of
from lamina_kernels.attention.targets import Target, masses, resolve
from lamina_kernels.refusals import refuse

MOST_TOP_KEYS = 8
FORMS = ("reference", "blocked", "triton")


class Attention(NamedTuple):
    """What `attend` returns.

    Attributes:
        out: [batch, heads, queries, dim of v] in the dtype of v; packed, [total, heads, dim of v]. Without values the
            dim is 0.
        stats: The statistics that were asked.
        impl: The form that ran: `"reference"`, `"blocked"` or `"triton"`.
    """

    out: torch.Tensor
    stats: Statistics
    impl: str


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor | None = None,
    *,
    causal: bool = False,
    align: Literal["bottom-right", "top-left"] = "bottom-right",
    window: tuple[int | None, int | None] | None = None,
    mask: BlockMask | None = None,
    bias: Bias | None = None,
    score: Score = Dot(),  # noqa: B008
    normalizer: Normalizer = Softmax(),  # noqa: B008
    scale: float | None = None,
    dropout_p: float = 0.0,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    statistics: Collection[str] = (),
    targets: Mapping[str, Target] | None = None,
    topk: int = 0,
    share: float | None = None,
    precision: Literal["bf16x6", "tf32", "ieee"] | None = None,
    impl: Literal["reference", "blocked", "triton"] | None = None,
) -> Attention:
    """Attention that also says what its heads do.

    out_i = sum_j p_ij v_j, where p_i are the weights of query i: the softmax of its scores s_ij over the keys that it
    sees, or the sigmoid of each. Statistics of p come from the same pass, with gradients; N x N numbers are never held,
    but by the form `reference`.

    Args:
        q: [batch, heads, queries, dim], float16, bfloat16, float32 or float64, dim up to 256; any strides. Packed, with
            `cu_seqlens_*`, [total, heads, dim].
        k: [batch, key heads, keys, dim] or packed; heads are a multiple of key heads, head h looks at key head
            h // (heads // key heads).
        v: As k, with a last dimension of its own, up to 256; None for the statistics alone.
        causal: A query sees no later key.
        align: Where queries stand if they are not as many as the keys: `"bottom-right"`, the last query at the last
            key; `"top-left"`, the first at the first, as `scaled_dot_product_attention` has it.
        window: (left, right): how many keys before and behind its own a query sees, None for no limit.
        mask: What `block_mask` or `documents` return. All of causality, window and mask hold.
        bias: `ALiBi(slopes)`, `RelativeBias(table)` or `KeyBias(values)`.
        score: `Dot()`, `Cosine(temperature)` or `SquaredDistance(bandwidth)`.
        normalizer: `Softmax(sink=, softcap=)` or `Sigmoid(bias)`.
        scale: What `Dot` multiplies products with, 1 / sqrt(dim) if None.
        dropout_p: Here for those who call `scaled_dot_product_attention`: anything but 0 is refused.
        cu_seqlens_q: [sequences + 1] int32, rising from 0 to total: sequence s has the queries from
            cu_seqlens_q[s] up to cu_seqlens_q[s + 1].
        cu_seqlens_k: Likewise for keys and values.
        max_seqlen_q: Queries of the longest sequence; None looks into `cu_seqlens_q`.
        max_seqlen_k: Likewise for the keys.
        statistics: Names: `"lse"`, `"max"`; at a few percent of a pass `"entropy"`, `"expected_score"`; at a few more
            `"argmax"`, `"sum_p2"`, `"distance"`; in a second pass over the scores `"received"`, `"block_mass"`.
        targets: Keys by name, whose weight is asked: an int is an offset from the query's position (-1: the previous
            token); int64 [queries], [heads, queries] or [batch, heads, queries] is a key a query, none where it is
            outside; bool [keys], [heads, keys] or [batch, heads, keys] is a set of keys, at most 16 of them. Keys
            are numbered in their sequence; a set of packed keys is [total].
        topk: How many of the largest scores, and their keys, are asked a query: at most 8.
        share: Count the keys of each query whose weight is above this, in a second pass.
        precision: How float32 is multiplied on tensor cores: `"bf16x6"`, `"tf32"` or `"ieee"`; None for accurately.
            Forms in plain torch multiply as torch is set to.
        impl: `"reference"` holds the pattern; `"blocked"` is plain torch with flat memory; `"triton"` needs a GPU (or
            `TRITON_INTERPRET=1`) and never gives way. None takes `"triton"` on a GPU for what it supports, and else
            `"blocked"`.

    Returns:
        The output, the statistics, and the name of the form that ran. A query that sees no key has the output 0.

    Raises:
        ValueError: Shapes, dtypes, devices, lengths or names that do not fit; statistics that the normalizer does not
            have; float64 with `impl="triton"`.
        TypeError: A score, normalizer, bias, mask or target of another kind.
        NotImplementedError: Dropout, a combination that the form does not support, or gradients of gradients.
        RuntimeError: `impl="triton"` without a GPU, or without Triton.

    Cost:
        4 B H N M D operations forward and about 10 backward, half if causal; memory O(N D). Without values, 2 and about
        6. `received`, `block_mass` and `share` together 2 B H N M D more, and in Triton `topk`, which has a kernel of
        its own, as many again. `block_mass` holds N M / 16384 numbers a head.

    Source:
        The online softmax of Milakov and Gimelshein (2018) and FlashAttention (Dao et al., 2022); entropy relative to
        the running maximum, and the gradients of statistics, are ours (docs/attention.md).

    Example:
        >>> import torch
        >>> q, k, v = (torch.randn(1, 4, 100, 16) for _ in range(3))
        >>> out, stats, impl = attend(q, k, v, causal=True, statistics=("entropy",), targets={"previous": -1})
        >>> out.shape, stats.entropy.shape, stats.targets["previous"][0, 0, 0].item()
        (torch.Size([1, 4, 100, 16]), torch.Size([1, 4, 100]), 0.0)
    """
    if dropout_p != 0:
        refuse("attend", DROPOUT)
    names = checked_names(statistics, normalizer)
    _check_counts(topk, share)
    p = arguments.build(
        "attend",
        q,
        k,
        v,
        causal=causal,
        align=align,
        window=window,
        mask=mask,
        bias=bias,
        score=score,
        normalizer=normalizer,
        scale=scale,
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_k=cu_seqlens_k,
        max_seqlen_q=max_seqlen_q,
        max_seqlen_k=max_seqlen_k,
        precision=precision,
    )
    asked = resolve(p, targets)
    p = replace(p, columns=asked.columns, tier=tier_of(names, columns=asked.columns is not None), topk=topk)
    wanted = Wanted("received" in names, "block_mass" in names, share)
    form = choose("attend", p, wanted, impl)
    sums = _first_pass(p, form)
    if isinstance(normalizer, Softmax) and normalizer.sink is not None:
        sums = with_sink(sums, normalizer.sink)
    second = _second_pass(p, sums.lse, wanted, form) if any(wanted[:2]) or share is not None else Masses()
    stats = Statistics(
        **{
            name: getattr(sums, name)
            for name in ("lse", "entropy", "max", "argmax", "sum_p2", "expected_score")
            if name in names
        },
        distance=Distance(*sums.distance) if "distance" in names and sums.distance is not None else None,
        targets=None if targets is None else masses(p, asked, sums.lse, sums.columns),
        top_scores=sums.top_scores,
        top_keys=sums.top_keys,
        received=second.received,
        block_mass=second.blocks,
        keys_above=second.above,
    )
    if p.cu_seqlens_q is None:
        return Attention(sums.out, stats, form)
    return Attention(sums.out[0].transpose(0, 1), _without_batch(stats), form)


def choose(op: str, p: Problem, wanted: Wanted, impl: str | None) -> str:
    """Return the form that runs: what was asked for, if it can, or the fastest that can.

    A problem without queries or keys is nobody's work: the form `reference` answers it.
    """
    form = dispatch.choose(op, FORMS, impl, default=_default(p))
    if form == "triton":
        dispatch.demand_triton(op, p.q)
    refused = refusal_of(p, wanted, form)
    if refused is not None and impl is None:
        form = "blocked"
    elif refused is not None:
        refuse(op, refused)
    return "reference" if 0 in p.q.shape[:3] or p.k.shape[2] == 0 else form


def _default(p: Problem) -> str:
    if p.q.is_cuda and dispatch.triton_obstacle(p.q) is None:
        return "triton"
    return "blocked"


def _first_pass(p: Problem, form: str) -> Sums:
    return reference.forward(p) if form == "reference" else first_pass(p, form)


def _second_pass(p: Problem, lse: torch.Tensor | None, wanted: Wanted, form: str) -> Masses:
    return reference.mass(p, lse, wanted) if form == "reference" else second_pass(p, lse, wanted, form)


def _without_batch(stats: Statistics) -> Statistics:
    """Return statistics of packed sequences, without the dimension of the batch."""
    changed = _first_of(stats)
    if stats.distance is not None:
        changed["distance"] = stats.distance._replace(**_first_of(stats.distance))
    if stats.targets is not None:
        changed["targets"] = {name: value[0] for name, value in stats.targets.items()}
    return stats._replace(**changed)


def _first_of(fields: Statistics | Distance) -> dict[str, Any]:
    return {name: value[0] for name, value in fields._asdict().items() if isinstance(value, torch.Tensor)}


def _check_counts(topk: int, share: float | None) -> None:
    if isinstance(topk, bool) or not isinstance(topk, int) or not 0 <= topk <= MOST_TOP_KEYS:
        raise ValueError(f"attend: topk is {topk!r}, expected a number from 0 to {MOST_TOP_KEYS}")
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"attend: share is {share!r}, expected a weight from 0 to 1")
