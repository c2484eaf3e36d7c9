"""The names of statistics, what they cost, and the object that holds them."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import NamedTuple

import torch

from lamina_kernels.attention.normalizers import Normalizer, Sigmoid

FIRST_PASS = {"lse": 0, "max": 0, "entropy": 1, "expected_score": 1, "argmax": 2, "sum_p2": 2, "distance": 2}
"""The tier that computes each statistic in the pass that computes the output."""

SECOND_PASS = ("received", "block_mass")

OF_A_DISTRIBUTION = ("lse", "entropy", "expected_score", "distance")
"""What a sigmoid does not have: its weights sum to nothing in particular."""


class Distance(NamedTuple):
    """How far before its query a key lies, d = i - j, under the weights; all [B, H, Nq].

    Attributes:
        mean: sum p d.
        variance: sum p (d - mean)².
        absolute_mean: sum p |d|, the mean itself if causal.
        absolute_variance: The variance of |d|. Both are None where `merge` cannot know them.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    absolute_mean: torch.Tensor | None
    absolute_variance: torch.Tensor | None


class Statistics(NamedTuple):
    """Statistics of attention weights p, None where not asked.

    They are float32 (float64 for float64), in nats, of scores after scale, cap and bias; [batch, query heads, queries]
    if nothing else is said, without the batch for packed sequences. Keys are counted in their sequence. Of a query
    that sees no key, lse and max are -inf, keys are -1 and the rest is 0. All but integers and `top_scores` are
    differentiable.

    Attributes:
        lse: log sum_j exp(s_j), the sink counted.
        entropy: -sum_j p_j log p_j, the sink counted.
        max: The largest score of a key; its gradient goes to that key.
        argmax: Its key, int64, the first of equals.
        sum_p2: sum_j p_j², the sink counted; 1 / sum_p2 is an effective number of keys.
        expected_score: sum_j p_j s_j, the sink counted.
        distance: Mean and variance of i - j and of |i - j|.
        targets: The weight on each named target.
        top_scores: [..., topk], falling.
        top_keys: [..., topk] int64, equal scores by key, -1 behind the last key that is seen.
        received: [batch, query heads, keys]: sum_i p_ij.
        block_mass: [batch, query heads, query blocks, key blocks]: sum of p over blocks of 128 queries by 128 keys.
        keys_above: int64: how many keys have a weight above `share=`.
    """

    lse: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    max: torch.Tensor | None = None
    argmax: torch.Tensor | None = None
    sum_p2: torch.Tensor | None = None
    expected_score: torch.Tensor | None = None
    distance: Distance | None = None
    targets: dict[str, torch.Tensor] | None = None
    top_scores: torch.Tensor | None = None
    top_keys: torch.Tensor | None = None
    received: torch.Tensor | None = None
    block_mass: torch.Tensor | None = None
    keys_above: torch.Tensor | None = None


def checked_names(names: Collection[str], normalizer: Normalizer) -> tuple[str, ...]:
    """Return the names of statistics, or raise ValueError if one is unknown or the normalizer does not have it."""
    if isinstance(names, str):
        raise ValueError(f"attend: statistics is {names!r}, expected several names, such as ({names!r},)")
    known = (*FIRST_PASS, *SECOND_PASS)
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1)
            guess = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ValueError(f"attend: statistics has {name!r}, expected names out of {', '.join(known)}{guess}")
        if isinstance(normalizer, Sigmoid) and name in OF_A_DISTRIBUTION:
            raise ValueError(
                f"attend: statistics has {name!r}, which Sigmoid does not have: its weights are no distribution"
            )
    return tuple(names)


def tier_of(names: Collection[str], *, columns: bool) -> int:
    """Return the smallest tier that computes all of the names, and masses of sets of keys if there are `columns`."""
    return 3 if columns else max([0, *(FIRST_PASS.get(name, 0) for name in names)])
