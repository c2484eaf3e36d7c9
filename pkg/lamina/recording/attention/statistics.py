"""Statistics of attention, by the way that the masks allow."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lamina.recording.attention import blocked
from lamina.recording.attention.inputs import Attention, known
from lamina.recording.attention.reach import Reach, reach_of
from lamina_kernels.attention import KeyBias, Softmax, attend
from lamina_kernels.attention.arguments import LARGEST_DIM

_NAMES = {
    "logsumexp": "lse",
    "entropy": "entropy",
    "max_score": "max",
    "max_key": "argmax",
    "participation_ratio": "sum_p2",
    "expected_score": "expected_score",
    "distance": "distance",
    "received": "received",
}
"""What `attend` calls a statistic; the others are targets of it."""
_OFFSETS = {"previous": -1, "self": 0, "next": 1}
_KNOWN = ("logsumexp", "max_score", "max_key", "received")
"""What also a query without a key has."""


def attention_statistics(attention: Attention, statistics: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return statistics of attention without its matrix.

    Computed by `lamina_kernels.attention.attend` where the masks come to hidden keys, causality and a window
    (`reach.reach_of`), else from tiles of scores under the dense masks (`blocked`): where a mask adds other numbers, as
    position biases do, or shows other pairs, such as documents; where a soft cap and hidden keys come together; where
    queries stand elsewhere than at the last keys that anyone sees; and for heads of more than 256 dimensions.

    A query that reaches no key has no distribution: its `logsumexp` and `max_score` are -inf, its `max_key` is -1, the
    other statistics are NaN, and no key receives mass from it. Nothing is differentiated.

    Args:
        attention: Queries, keys and masks.
        statistics: Names out of `STATISTICS`, which defines them.

    Returns:
        A tensor a name: [B, T, H], `received` [B, S, H], float32 (float64 for float64 queries), `max_key` int64.

    Raises:
        RecordingError: If a name is no statistic.

    Cost: the product of queries and keys once, once more for `received`; memory for a tile of all heads.

    Example:
        >>> import torch
        >>> from lamina.recording.attention import Attention
        >>> from lamina.recording.attention.statistics import attention_statistics
        >>> alike = Attention(q=torch.zeros(1, 2, 3, 8), k=torch.randn(1, 2, 5, 8))
        >>> attention_statistics(alike, ["entropy"])["entropy"].exp().round().unique().tolist()
        [5.0]
    """
    names = known(statistics)
    # The sums are ours: a model's autocast would round the products.
    with torch.no_grad(), torch.autocast(attention.q.device.type, enabled=False):
        reach = reach_of(attention)
        if reach is None or not _takes(attention, reach):
            return blocked.attention_statistics(attention, names)
        return _attended(attention, names, reach)


def _takes(a: Attention, reach: Reach) -> bool:
    """Whether `attend` takes a call; a cap would cap what hides a key."""
    return (a.softcap is None or reach.bias is None) and a.q.shape[3] <= LARGEST_DIM


def _attended(a: Attention, names: tuple[str, ...], reach: Reach) -> dict[str, torch.Tensor]:
    k = a.k[:, :, : reach.keys]
    targets: dict[str, int | torch.Tensor] = {name: offset for name, offset in _OFFSETS.items() if name in names}
    if "sink" in names:
        targets["sink"] = torch.zeros(a.shape[2], dtype=torch.int64, device=k.device)
    stats = attend(
        a.q,
        k,
        causal=reach.right == 0,
        window=(reach.left, reach.right),
        bias=None if reach.bias is None else KeyBias(reach.bias),
        normalizer=Softmax(softcap=a.softcap),
        scale=a.scale,
        statistics=["lse", *(_NAMES[name] for name in names if name in _NAMES)],
        targets=targets,
    ).stats
    found = {name: getattr(stats, field) for name, field in _NAMES.items() if name in names} | (stats.targets or {})
    if stats.distance is not None:
        found["distance"] = stats.distance.absolute_mean
    if "participation_ratio" in names:
        found["participation_ratio"] = found["participation_ratio"].reciprocal()
    if "received" in names:
        found["received"] = torch.nn.functional.pad(found["received"], (0, a.shape[3] - reach.keys))
    assert stats.lse is not None
    nowhere = stats.lse == -torch.inf
    for name in names:
        if name not in _KNOWN:
            found[name] = found[name].masked_fill(nowhere, torch.nan)
    return {name: found[name].transpose(1, 2) for name in names}
