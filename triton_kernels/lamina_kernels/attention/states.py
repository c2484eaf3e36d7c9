"""What softmax attention leaves over sets of keys, put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from lamina_kernels.attention.problem import Sums


class Shares(NamedTuple):
    """How much of the whole each part is.

    Attributes:
        lse: [...]: of all parts together.
        weights: [parts, ...]: exp(lse_part - lse); 0 where no part has a key.
        logs: [parts, ...]: their logs, 0 where the weight is.
    """

    lse: torch.Tensor
    weights: torch.Tensor
    logs: torch.Tensor

    def mean(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of [...] or [..., width], in the dtype of the weights."""
        weights = self.weights if values[0].ndim == self.lse.ndim else self.weights[..., None]
        return (weights * torch.stack([value.to(weights.dtype) for value in values])).sum(0)


def shares_of(lses: Sequence[torch.Tensor]) -> Shares:
    """Return the shares of parts by their log-sum-exps; -inf is a part without keys, and has no gradient."""
    each = torch.stack(list(lses))
    gone = each == -torch.inf
    none = gone.all(0)
    total = each.masked_fill(none, 0).logsumexp(0).masked_fill(none, -torch.inf)
    # Where the share is 0, 0 stands for its log, as nothing is multiplied by it.
    logs = (each.masked_fill(gone, 0) - total.masked_fill(none, 0)).masked_fill(gone, 0)
    return Shares(total, logs.exp().masked_fill(gone, 0), logs)


def merged(parts: Sequence[Sums], shares: Shares) -> Sums:
    """Return what attention over all keys leaves, of what it leaves over disjoint sets of them.

    out, lse, entropy, expected_score, sum_p2 and columns, each if all parts have it; the rest is None.
    """
    found = {"lse": shares.lse}
    for name in ("entropy", "expected_score", "sum_p2", "columns"):
        values = [getattr(part, name) for part in parts]
        if all(value is not None for value in values):
            found[name] = (
                shares._replace(weights=shares.weights.square()).mean(values)
                if name == "sum_p2"
                else shares.mean(values)
            )
    if "entropy" in found:
        found["entropy"] = found["entropy"] - (shares.weights * shares.logs).sum(0)
    return Sums(shares.mean([part.out for part in parts]).to(parts[0].out.dtype), **found)


def with_sink(sums: Sums, sink: torch.Tensor) -> Sums:
    """Return the sums with one more key, of score `sink` [H or 1] and without a value.

    What is about keys stays: max, argmax, distance and top-k.
    """
    if sums.lse is None:
        raise ValueError("a sigmoid has no sink")
    score = sink.to(sums.lse.dtype).reshape(-1, 1).expand(sums.lse.shape)
    key = Sums(
        torch.zeros_like(sums.out),
        entropy=torch.zeros_like(score),
        # A sink of -inf is none: it has no share, and -inf may not be multiplied with that.
        expected_score=score.masked_fill(score == -torch.inf, 0),
        sum_p2=torch.ones_like(score),
        columns=None if sums.columns is None else torch.zeros_like(sums.columns),
    )
    whole = merged([sums, key], shares_of([sums.lse, score]))
    return sums._replace(**{name: value for name, value in whole._asdict().items() if value is not None})
