"""What the forms of `attend` compute, whatever the score, the normalizer and the mask were called.

A face turns its arguments into a `Problem`, in differentiable torch: every score function is

    s_ij = cap(scale a_i c_j <q_i, k_j> + u_i + w_j) + b(i, j)

with factors a, c and terms u, w a row, so that the forms know one score, and the gradients of temperatures, bandwidths
and norms follow from those of the four. A form has `forward(problem) -> Sums` and `backward(problem, sums, gradients)
-> Gradients`; `mass(problem, lse, wanted) -> Masses` for the second pass; `divergence(first, second, kind, known) ->
Divergences`. Query i stands at key i + shift of its sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from lamina_kernels.attention.masks import BlockMask


@dataclass(frozen=True)
class Problem:
    """One attention. B sequences of one length, or, packed, B = 1 and sequences one behind the other.

    Attributes:
        q: [B, H, Nq, D].
        k: [B, Hk, Nk, D]; query head h looks at key head h // (H // Hk).
        v: [B, Hk, Nk, Dv]; of values that nobody has, Dv is 0.
        scale: What every product is multiplied with.
        query_scale: a, [B, H, Nq] float32 (float64 for float64), any strides, or None for 1.
        key_scale: c, [B, H, Nk], per query head (expanded, stride 0, where heads share it), or None for 1.
        query_bias: u, [B, H, Nq], or None for 0.
        key_bias: w, [B, H, Nk], or None for 0; a key whose term is -inf is seen by no query.
        slopes: [H]: b(i, j) = -slopes_h |i + shift - j| (ALiBi), or None.
        table: [H, 2 R + 1]: b(i, j) = table[h, R + clip(i + shift - j, -R, R)], or None.
        softcap: cap(s) = softcap tanh(s / softcap), or None for s itself.
        sigmoid: Weights are sigmoid(s) instead of the softmax of s.
        causal: Query i sees the keys j <= i + shift alone.
        left: Query i sees the keys j >= i + shift - left alone; -1 for all.
        right: Query i sees the keys j <= i + shift + right alone; -1 for all.
        bottom_right: shift is Nk - Nq of the sequence, so that the last query stands at the last key; else 0.
        mask: Which blocks of keys each block of queries sees, and which pairs of a block that is seen in part.
        cu_seqlens_q: [S + 1] int32: packed sequence s has the queries from cu_seqlens_q[s] up to cu_seqlens_q[s + 1].
        cu_seqlens_k: [S + 1] int32, likewise for the keys.
        max_seqlen_q: Queries of the longest sequence: Nq if not packed.
        max_seqlen_k: Keys of the longest sequence: Nk if not packed.
        columns: [B or 1, H or 1, Nk, C] float32, C at most 16: functions of the key whose mean under p is asked.
        tier: Which statistics: 0 for `lse` and `max`; 1 for `entropy` and `expected_score` as well; 2 for `argmax`,
            `sum_p2` and `distance` as well; 3 for `columns` as well. A sigmoid has those but lse and entropy.
        topk: How many of the largest scores and their keys are asked, at most 8.
        precision: How float32 is multiplied on tensor cores: "bf16x6", "tf32" or "ieee"; None for accurately.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float = 1.0
    query_scale: torch.Tensor | None = None
    key_scale: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None
    key_bias: torch.Tensor | None = None
    slopes: torch.Tensor | None = None
    table: torch.Tensor | None = None
    softcap: float | None = None
    sigmoid: bool = False
    causal: bool = False
    left: int = -1
    right: int = -1
    bottom_right: bool = True
    mask: BlockMask | None = None
    cu_seqlens_q: torch.Tensor | None = None
    cu_seqlens_k: torch.Tensor | None = None
    max_seqlen_q: int = 0
    max_seqlen_k: int = 0
    columns: torch.Tensor | None = None
    tier: int = 0
    topk: int = 0
    precision: str | None = None

    @property
    def dtype(self) -> torch.dtype:
        """What scores and statistics are: float64 for float64, else float32."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32


class Sums(NamedTuple):
    """What a forward pass leaves; float32 (float64 for float64) but for `out` and indices, None where not asked.

    A query that sees no key has out 0, lse, max and top scores -inf, argmax and top keys -1, and 0 for the rest. Keys
    are numbered within their sequence.

    Attributes:
        out: [B, H, Nq, Dv] in the dtype of v: sum_j p_ij v_j.
        lse: [B, H, Nq]: log sum_j exp(s_ij), in nats.
        max: [B, H, Nq]: the largest s_ij.
        entropy: [B, H, Nq]: -sum_j p_ij log p_ij, in nats.
        expected_score: [B, H, Nq]: sum_j p_ij s_ij.
        argmax: [B, H, Nq] int64: the key of the largest score, the first of equals.
        sum_p2: [B, H, Nq]: sum_j p_ij².
        distance: [4, B, H, Nq]: mean and variance of d = i + shift - j under p, and of |d|.
        columns: [B, H, Nq, C]: sum_j p_ij columns_j.
        top_scores: [B, H, Nq, topk], falling.
        top_keys: [B, H, Nq, topk] int64, equal scores by key.
    """

    out: torch.Tensor
    lse: torch.Tensor | None = None
    max: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    expected_score: torch.Tensor | None = None
    argmax: torch.Tensor | None = None
    sum_p2: torch.Tensor | None = None
    distance: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    top_scores: torch.Tensor | None = None
    top_keys: torch.Tensor | None = None


class Gradients(NamedTuple):
    """Gradients by what `Problem` holds; None where it holds None. Half-precision rows have theirs in their dtype."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    query_scale: torch.Tensor | None = None
    key_scale: torch.Tensor | None = None
    query_bias: torch.Tensor | None = None
    key_bias: torch.Tensor | None = None
    slopes: torch.Tensor | None = None
    table: torch.Tensor | None = None


MASS_BLOCK = 128
"""Queries and keys of a block of `Masses.blocks`."""


class Wanted(NamedTuple):
    """What a second pass is asked for.

    Attributes:
        received: Whether `Masses.received` is.
        blocks: Whether `Masses.blocks` is.
        share: What a weight has to exceed to be counted by `Masses.above`, which None does not ask for.
    """

    received: bool = False
    blocks: bool = False
    share: float | None = None


class Masses(NamedTuple):
    """Sums of weights p_ij = exp(s_ij - lse_i), whose lse is given; without one, p_ij = sigmoid(s_ij).

    A query whose lse is -inf gives nothing. A pass is differentiable in what `Problem` holds and in lse: `received`
    with ds_ij = p_ij g_j and dlse_i = -sum_j p_ij g_j, `blocks` likewise with the g of the pair's block.

    Attributes:
        received: [B, H, Nk]: sum_i p_ij.
        blocks: [B, H, query blocks, key blocks]: sum of p_ij over `MASS_BLOCK` queries by `MASS_BLOCK` keys,
            counted from the first row of the arrays, not of a packed sequence.
        above: [B, H, Nq] int64: how many keys have p_ij > share.
    """

    received: torch.Tensor | None = None
    blocks: torch.Tensor | None = None
    above: torch.Tensor | None = None


Known = tuple[torch.Tensor, torch.Tensor] | None
"""The log-sum-exps of two problems, each [B, H, Nq] in the dtype of statistics, or None where nobody knows them."""


class Divergences(NamedTuple):
    """The divergence of the weights p of a first problem from the weights r of a second one, all [B, H, Nq].

    Both problems have the same sequences, windows and mask, and neither a sigmoid. With f the divergence of a query,
    ds_j = p_j (f_j' - mean) where f_j' is the derivative of f by p_j ("kl": log(p_j / r_j); "js": log(p_j / m_j) / 2
    with m the mean of p and r; "tv": sign(p_j - r_j) / 2), and likewise for the second with the derivative by r_j
    ("kl": -p_j / r_j). A key whose term is -inf in one problem alone has the weight 0 there. Where the second sees less
    than the first, "kl" is inf whatever the scores, and passes no gradient.

    Attributes:
        value: "kl": sum p log(p / r); "js": half of KL(p | m) + KL(r | m); "tv": half of sum |p - r|. In nats; 0
            for a query that sees no key.
        lse: Of the first problem.
        other_lse: Of the second one.
        mean: sum_j p_j f_j'.
        other_mean: sum_j r_j f_j', with the derivative by r_j.
    """

    value: torch.Tensor
    lse: torch.Tensor
    other_lse: torch.Tensor
    mean: torch.Tensor
    other_mean: torch.Tensor
