"""What one call of attention was given, and the names of the statistics."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from lamina.errors import RecordingError
from lamina.runs.nearest import nearest_names

STATISTICS = {
    "logsumexp": "log of the sum of exp(score) over the keys",
    "entropy": "-sum p log p, in nats",
    "max_score": "the largest score",
    "max_key": "the key of the largest score, the first one if several share it",
    "participation_ratio": "1 / sum p^2: how many keys hold the mass, if they held it equally",
    "expected_score": "sum p score",
    "distance": "sum p |position of the query - position of the key|",
    "previous": "p of the key before the query's position, 0 where there is none",
    "self": "p of the key at the query's position, 0 where there is none",
    "next": "p of the key behind the query's position, 0 where there is none",
    "sink": "p of the first key",
    "received": "sum of p over the queries, of each key",
}
"""What each statistic is; p is the softmax of a query's scores over the keys that it may attend to."""


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Queries, keys, and how scores are made of them.

    The score of a query and a key is `scaling` q . k, capped by `softcap` tanh(. / softcap) if a cap is given, plus
    the additive masks. A key is out of a query's reach where a mask of booleans is False, where an additive mask
    is at most half the lowest number of its dtype (the custom is to add that number, or -inf), or, if `causal`,
    where it stands behind the query.

    Args:
        q: Queries [B, H, T, d].
        k: Keys [B, Hk, S, d]. Each head of the keys serves H / Hk heads of the queries that stand together.
        masks: Each broadcasts to [B, H, T, S]; booleans are True where a query may attend, numbers are added.
        causal: Whether a query reaches only the keys up to its own position.
        scaling: The factor of the product; None takes 1 / sqrt(d).
        softcap: The bound of the capped scores, or None.
        first: The position of the first query among the keys; None takes S - T: the queries are the last ones.

    Raises:
        RecordingError: If shapes do not fit each other.

    Example:
        >>> import torch
        >>> from lamina.recording.attention import Attention
        >>> Attention(q=torch.zeros(2, 4, 5, 8), k=torch.zeros(2, 2, 7, 8)).shape
        (2, 4, 5, 7)
    """

    q: torch.Tensor
    k: torch.Tensor
    masks: tuple[torch.Tensor, ...] = ()
    causal: bool = False
    scaling: float | None = None
    softcap: float | None = None
    first: int | None = None

    def __post_init__(self) -> None:
        q, k = list(self.q.shape), list(self.k.shape)
        if len(q) != 4 or len(k) != 4 or q[0] != k[0] or q[3] != k[3] or k[1] == 0 or q[1] % k[1] != 0:
            raise RecordingError(
                f"queries {q} and keys {k} are no attention",
                hint="queries are [B, H, T, d] and keys [B, Hk, S, d], with H a multiple of Hk",
            )
        for mask in self.masks:
            sizes = [1] * (4 - mask.ndim) + list(mask.shape)
            if len(sizes) != 4 or any(size not in (1, whole) for size, whole in zip(sizes, self.shape, strict=True)):
                raise RecordingError(f"a mask {list(mask.shape)} does not fit scores {list(self.shape)}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape [B, H, T, S] of the scores."""
        B, H, T, _ = self.q.shape
        return B, H, T, self.k.shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that scores are computed in: at least float32."""
        return torch.promote_types(self.q.dtype, torch.float32)

    @property
    def scale(self) -> float:
        """The factor of the product of a query and a key."""
        return self.q.shape[3] ** -0.5 if self.scaling is None else self.scaling

    def positions(self) -> torch.Tensor:
        """The position of each query among the keys [T]."""
        first = self.k.shape[2] - self.q.shape[2] if self.first is None else self.first
        return torch.arange(first, first + self.q.shape[2], device=self.q.device)


def lowest(mask: torch.Tensor) -> float:
    """Return the number at or below which an additive mask hides a key."""
    return torch.finfo(mask.dtype).min / 2


def known(statistics: Iterable[str]) -> tuple[str, ...]:
    """Return the names without repetition.

    Args:
        statistics: Names of statistics.

    Returns:
        The names, each once, in their order.

    Raises:
        RecordingError: If one is no statistic, or there is none; the hint lists the nearest.

    Example:
        >>> from lamina.recording.attention.inputs import known
        >>> known(["entropy", "received", "entropy"])
        ('entropy', 'received')
    """
    if isinstance(statistics, str):
        statistics = [statistics]
    names = tuple(dict.fromkeys(statistics))
    for name in names:
        if name not in STATISTICS:
            raise RecordingError(f"{name!r} is no statistic of attention", hint=nearest_names(str(name), STATISTICS))
    if not names:
        raise RecordingError("no statistic of attention was named", hint=f"there are: {', '.join(STATISTICS)}")
    return names
