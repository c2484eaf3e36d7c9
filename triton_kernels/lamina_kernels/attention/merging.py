"""The public face of `merge`: attention over parts of the keys, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed

from lamina_kernels.attention.api import Attention
from lamina_kernels.attention.problem import Sums
from lamina_kernels.attention.states import Shares, merged, shares_of
from lamina_kernels.attention.statistics import Distance, Statistics


def merge(parts: Sequence[Attention], *, first_keys: Sequence[int] | None = None) -> Attention:
    """Put attention of the same queries over disjoint sets of keys together, as if all had been seen at once.

    Long keys come in pieces, from several calls or several ranks (`gather_parts`). Each leaves its output, its
    log-sum-exp and its statistics, which weigh with exp(lse_part - lse). Any order and any tree gives the same.

    Args:
        parts: What `attend` returned with a `Softmax` and `"lse"` among the statistics, of the same queries.
        first_keys: The number of each part's first key in the whole, by which argmax, top-k and distance are counted
            on: i - j of `align="top-left"`. None leaves them as they are.

    Returns:
        The output and those statistics that all parts have. None are what keys receive, which cannot be known of parts
        (take a second pass with the merged lse), and with `first_keys` the moments of |i - j|. Differentiable.

    Raises:
        ValueError: No parts, a part without lse, parts of several shapes, not as many `first_keys` as parts.

    Cost:
        One pass over the outputs.

    Example:
        >>> import torch
        >>> from lamina_kernels.attention import attend
        >>> q, k, v = (torch.randn(1, 2, 30, 16) for _ in range(3))
        >>> asked = ("lse", "max", "argmax")
        >>> parts = [attend(q, k[:, :, s], v[:, :, s], statistics=asked) for s in (slice(0, 20), slice(20, 30))]
        >>> whole, both = attend(q, k, v, statistics=asked), merge(parts, first_keys=[0, 20])
        >>> torch.allclose(whole.out, both.out, atol=1e-5), torch.equal(whole.stats.argmax, both.stats.argmax)
        (True, True)
    """
    stats = [part.stats for part in parts]
    at = _first_keys(parts, first_keys)
    shares = shares_of([s.lse for s in stats if s.lse is not None])
    packed = parts[0].out.ndim == 3
    names = [name for name in stats[0].targets or {} if all(name in (s.targets or {}) for s in stats)]
    whole = merged(
        [
            Sums(
                part.out.transpose(0, 1) if packed else part.out,
                entropy=s.entropy,
                expected_score=s.expected_score,
                sum_p2=s.sum_p2,
                columns=torch.stack([(s.targets or {})[name] for name in names], -1) if names else None,
            )
            for part, s in zip(parts, stats, strict=True)
        ],
        shares,
    )
    found = {name: getattr(whole, name) for name in ("lse", "entropy", "expected_score", "sum_p2")}
    if whole.columns is not None:
        found["targets"] = dict(zip(names, whole.columns.unbind(-1), strict=True))
    if (distances := _all([s.distance for s in stats])) is not None:
        found["distance"] = _distance(distances, shares, at, moved=first_keys is not None)
    if (largest := _all([s.max for s in stats])) is not None:
        best, of = torch.stack(largest).max(0)
        found["max"] = best
        if (keys := _all([s.argmax for s in stats])) is not None:
            found["argmax"] = torch.stack(_counted_on(keys, at)).gather(0, of[None])[0]
    scores, keys = (_all([getattr(s, name) for s in stats]) for name in ("top_scores", "top_keys"))
    if scores is not None and keys is not None:
        best, order = torch.cat(scores, -1).sort(dim=-1, descending=True, stable=True)
        kept = slice(0, scores[0].shape[-1])
        ranked = torch.cat(_counted_on(keys, at), -1).gather(-1, order)
        found |= {"top_scores": best[..., kept], "top_keys": ranked[..., kept]}
    return Attention(whole.out.transpose(0, 1) if packed else whole.out, Statistics(**found), parts[0].impl)


def gather_parts(part: Attention, group: torch.distributed.ProcessGroup | None = None) -> list[Attention]:
    """Return the parts of all ranks of a group, in the order of ranks, for `merge`.

    Every rank holds some of the keys and all of the queries in question. Gradients go to a rank's own part alone: the
    gradient of the queries is the sum over the ranks.

    Args:
        part: What `attend` returned on this rank, with the same statistics on all.
        group: The process group, None for all ranks.

    Cost:
        One `all_gather` a tensor.

    Example:
        >>> import torch
        >>> from lamina_kernels.attention import attend
        >>> q, k, v = (torch.randn(1, 2, 30, 16) for _ in range(3))
        >>> torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        >>> part = attend(q, k, v, statistics=("lse",))
        >>> torch.allclose(merge(gather_parts(part)).out, part.out)
        True
        >>> torch.distributed.destroy_process_group()
    """
    ranks, own = torch.distributed.get_world_size(group), torch.distributed.get_rank(group)

    def gathered(tensor: torch.Tensor) -> list[torch.Tensor]:
        sent = tensor.detach().contiguous()
        received = [torch.empty_like(sent) for _ in range(ranks)]
        torch.distributed.all_gather(received, sent, group)
        received[own] = tensor
        return received

    each = _mapped(part, gathered, ranks)
    return [Attention(out, stats, part.impl) for out, stats in each]


def _mapped(
    part: Attention, gathered: Callable[[torch.Tensor], list[torch.Tensor]], ranks: int
) -> list[tuple[torch.Tensor, Statistics]]:
    """Return output and statistics of each rank."""

    def of(value: Any) -> list[Any]:
        if isinstance(value, torch.Tensor):
            return gathered(value)
        if isinstance(value, Distance):
            return [Distance(*fields) for fields in zip(*(of(field) for field in value), strict=True)]
        if isinstance(value, dict):
            columns = {name: of(tensor) for name, tensor in value.items()}
            return [{name: column[rank] for name, column in columns.items()} for rank in range(ranks)]
        return [value] * ranks

    stats = {name: of(value) for name, value in part.stats._asdict().items()}
    return [
        (out, Statistics(**{name: values[rank] for name, values in stats.items()}))
        for rank, out in enumerate(gathered(part.out))
    ]


def _first_keys(parts: Sequence[Attention], first_keys: Sequence[int] | None) -> list[int]:
    if not parts:
        raise ValueError("merge: parts is empty, expected what attend returned, one or more")
    for number, part in enumerate(parts):
        if part.stats.lse is None:
            raise ValueError(
                f"merge: parts[{number}] has no lse, expected attend(…, statistics=('lse', …)) and a Softmax"
            )
        if part.out.shape != parts[0].out.shape:
            raise ValueError(
                f"merge: parts[{number}] has the output {list(part.out.shape)}, but parts[0] {list(parts[0].out.shape)}"
            )
    if first_keys is not None and len(first_keys) != len(parts):
        raise ValueError(f"merge: first_keys has {len(first_keys)} numbers for {len(parts)} parts")
    return [0] * len(parts) if first_keys is None else list(first_keys)


def _all(values: Sequence[Any]) -> list[Any] | None:
    return None if any(value is None for value in values) else list(values)


def _counted_on(keys: Sequence[torch.Tensor], first_keys: Sequence[int]) -> list[torch.Tensor]:
    """Return keys numbered in the whole; -1 stays -1."""
    return [torch.where(key < 0, key, key + first) for key, first in zip(keys, first_keys, strict=True)]


def _distance(parts: Sequence[Distance], shares: Shares, first_keys: Sequence[int], *, moved: bool) -> Distance:
    """Return the moments of i - j over all parts."""

    def moments(means: Sequence[torch.Tensor], variances: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        mean = shares.mean(means)
        return mean, shares.mean([v + (m - mean).square() for m, v in zip(means, variances, strict=True)])

    mean, variance = moments(
        [part.mean - first for part, first in zip(parts, first_keys, strict=True)], [part.variance for part in parts]
    )
    means, variances = (_all([getattr(part, f"absolute_{name}") for part in parts]) for name in ("mean", "variance"))
    if moved or means is None or variances is None:
        return Distance(mean, variance, None, None)
    return Distance(mean, variance, *moments(means, variances))
