"""The public face of `divergence`: how differently two models attend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch

from lamina_kernels.attention import arguments, reference
from lamina_kernels.attention.api import choose
from lamina_kernels.attention.biases import Bias
from lamina_kernels.attention.masks import BlockMask
from lamina_kernels.attention.normalizers import Softmax
from lamina_kernels.attention.op_divergence import divergence as between
from lamina_kernels.attention.problem import Known, Problem, Wanted
from lamina_kernels.attention.scores import Dot, Score

KINDS = ("kl", "js", "tv")


class Divergence(NamedTuple):
    """What `divergence` returns.

    Attributes:
        value: [batch, heads, queries], or [heads, total] packed; float32, float64 for float64.
        impl: The form that ran: `"reference"`, `"blocked"` or `"triton"`.
    """

    value: torch.Tensor
    impl: str


def divergence(
    q: torch.Tensor,
    k: torch.Tensor,
    other_q: torch.Tensor,
    other_k: torch.Tensor,
    *,
    kind: Literal["kl", "js", "tv"] = "kl",
    lse: Sequence[torch.Tensor] | None = None,
    causal: bool = False,
    align: Literal["bottom-right", "top-left"] = "bottom-right",
    window: tuple[int | None, int | None] | None = None,
    mask: BlockMask | None = None,
    bias: Bias | None = None,
    score: Score = Dot(),  # noqa: B008
    softcap: float | None = None,
    scale: float | None = None,
    cu_seqlens_q: torch.Tensor | None = None,
    cu_seqlens_k: torch.Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    precision: Literal["bf16x6", "tf32", "ieee"] | None = None,
    impl: Literal["reference", "blocked", "triton"] | None = None,
) -> Divergence:
    """How far the attention of one model, or checkpoint, is from that of another.

    With p the softmax weights of q and k, and r those of the others over the same keys: `"kl"` is sum p log(p / r),
    `"js"` the mean of KL(p | m) and KL(r | m) with m their mean (at most log 2), `"tv"` half of sum |p - r| (at most
    1). In nats, not negative. Neither pattern is held, but by the form `reference`. A query that sees no key has 0.

    Args:
        q: [batch, heads, queries, dim], or packed [total, heads, dim].
        k: [batch, key heads, keys, dim], or packed.
        other_q: As q; the dim may differ, and so may the key heads.
        other_k: As k, likewise.
        kind: `"kl"`, `"js"` or `"tv"`. All are differentiable in rows and what the score holds, `"tv"` with the
            gradient 0 where p = r.
        lse: The log-sum-exps of both models where they are known: what `attend` returns as `stats.lse` of q and k, and
            of the others, with the same options and without a sink. [batch, heads, queries], or [heads, total] packed;
            float32, float64 for float64. They have to be those: the value is wrong for any others. They count as the
            functions of q and k that they are: gradients in q and k are the same as without them, and none goes to
            `lse`. The form `reference` computes its own.
        causal: This and what follows is as in `attend`, and holds for both models.
        align: As in `attend`.
        window: As in `attend`.
        mask: As in `attend`.
        bias: As in `attend`.
        score: As in `attend`.
        softcap: As in `Softmax`.
        scale: As in `attend`.
        cu_seqlens_q: As in `attend`.
        cu_seqlens_k: As in `attend`.
        max_seqlen_q: As in `attend`.
        max_seqlen_k: As in `attend`.
        precision: As in `attend`.
        impl: As in `attend`.

    Raises:
        ValueError: As `attend`; also if the two do not have equally many sequences, heads, queries and keys, and for
            an `lse` of another shape, dtype or device.
        TypeError: As `attend`; also for an `lse` that is not two tensors.
        NotImplementedError: As `attend`.
        RuntimeError: As `attend`.

    Cost:
        Both products of queries and keys: in Triton once for `"kl"`, twice for the others, whose weights have to be
        known first; with `lse`, once for all. Gradients take six more of each model. The form `blocked` takes both
        twice for all, with `lse` once. With `lse`, values carry its rounding, as weights from it do.

    Example:
        >>> import torch
        >>> q, k = torch.randn(1, 2, 10, 16), torch.randn(1, 2, 10, 16)
        >>> divergence(q, k, q, k, causal=True).value.abs().max().item() < 1e-6
        True
        >>> divergence(q, k, 0 * q, k, kind="tv").value.shape
        torch.Size([1, 2, 10])
        >>> from lamina_kernels.attention import attend
        >>> lse = attend(q, k, statistics=("lse",)).stats.lse
        >>> divergence(q, k, q, k, kind="js", lse=(lse, lse)).value.max().item() < 1e-6
        True
    """
    if kind not in KINDS:
        raise ValueError(f"divergence: kind is {kind!r}, expected 'kl', 'js' or 'tv'")
    problems = [
        arguments.build(
            "divergence",
            queries,
            keys,
            None,
            causal=causal,
            align=align,
            window=window,
            mask=mask,
            bias=bias,
            score=score,
            normalizer=Softmax(softcap=softcap),
            scale=scale,
            cu_seqlens_q=cu_seqlens_q,
            cu_seqlens_k=cu_seqlens_k,
            max_seqlen_q=max_seqlen_q,
            max_seqlen_k=max_seqlen_k,
            precision=precision,
        )
        for queries, keys in ((q, k), (other_q, other_k))
    ]
    first, second = problems
    if q.dtype != other_q.dtype or q.device != other_q.device:
        raise ValueError(
            f"divergence: other_q is {other_q.dtype} on {other_q.device}, but q is {q.dtype} on {q.device}"
        )
    if first.q.shape[:3] != second.q.shape[:3] or first.k.shape[2] != second.k.shape[2]:
        raise ValueError(
            f"divergence: q has shape {list(q.shape)} and k {list(k.shape)}, but other_q {list(other_q.shape)} and "
            f"other_k {list(other_k.shape)}: sequences, heads, queries and keys must be equally many"
        )
    known = _known(lse, first)
    form = choose("divergence", first, Wanted(False, False, None), impl)
    if form == "reference":
        value = reference.divergence(first, second, kind).value
    else:
        value = between(first, second, kind, known, form)
    return Divergence(value if first.cu_seqlens_q is None else value[0], form)


def _known(lse: Any, first: Problem) -> Known:
    """Return log-sum-exps that were given as a form takes them; gradients do not go through them."""
    if lse is None:
        return None
    if not isinstance(lse, tuple | list) or len(lse) != 2 or not all(isinstance(x, torch.Tensor) for x in lse):
        what = [type(x).__name__ for x in lse] if isinstance(lse, tuple | list) else type(lse).__name__
        raise TypeError(f"divergence: lse is {what}, expected two tensors, the log-sum-exps of both models, or None")
    packed = first.cu_seqlens_q is not None
    shape = first.q.shape[1:3] if packed else first.q.shape[:3]
    for name, x in zip(("lse[0]", "lse[1]"), lse, strict=True):
        if x.shape != shape:
            meaning = "[heads, total]" if packed else "[batch, heads, queries]"
            raise ValueError(f"divergence: {name} has shape {list(x.shape)}, expected {list(shape)}: {meaning}")
        if x.dtype != first.dtype or x.device != first.q.device:
            raise ValueError(
                f"divergence: {name} is {x.dtype} on {x.device}, expected {first.dtype} on {first.q.device}"
            )
    own, other = (x.detach()[None] if packed else x.detach() for x in lse)
    return own, other
