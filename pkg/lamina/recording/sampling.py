"""Which rows a sample keeps: decided by what a row is, never by when or where it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np


def sampled(example: Any, position: np.ndarray | None, *, fraction: float, seed: int) -> np.ndarray:
    """Tell of each row whether a sample of `fraction` keeps it.

    A row's 64-bit hash of (seed, example, position) is compared with `fraction * 2**64`. So every step, site,
    training and run keeps the same rows, and a smaller fraction keeps a part of what a larger one keeps. Where
    rows have no position, -1 stands for it. Texts count by their BLAKE2b.

    Args:
        example: Integers or texts, [B].
        position: [B, T], or None where rows have none.
        fraction: Between 0 and 1.
        seed: Another seed keeps other rows.

    Returns:
        Booleans, [B] or [B, T]. The cost is some ten integer operations a row.

    Example:
        >>> from lamina.recording.sampling import sampled
        >>> kept = sampled(range(10_000), None, fraction=0.1, seed=0)
        >>> bool(abs(kept.mean() - 0.1) < 0.01)
        True
    """
    key = _mix(_mix(np.uint64(seed & 0xFFFFFFFFFFFFFFFF)) ^ _keys(example))
    if position is not None:
        key = key[:, None] ^ np.asarray(position).astype(np.int64).astype(np.uint64)
    else:
        key = key ^ np.uint64(0xFFFFFFFFFFFFFFFF)
    # 53 bits are what a float compares exactly.
    return (_mix(key) >> np.uint64(11)) < np.uint64(round(fraction * 2**53))


def _keys(example: Any) -> np.ndarray:
    if hasattr(example, "detach"):
        example = example.detach().cpu().numpy()
    if not isinstance(example, np.ndarray):
        items: Sequence[Any] = list(example)
        if any(isinstance(item, str) for item in items):
            return np.array([_text(str(item)) for item in items], dtype=np.uint64)
        example = np.array(items, dtype=np.int64)
    if example.dtype.kind in "OUS":
        return np.array([_text(str(item)) for item in example], dtype=np.uint64)
    return example.astype(np.int64).astype(np.uint64)


def _text(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(key: Any) -> Any:
    # The finalizer of SplitMix64 (Steele, Lea, Flood 2014): every input bit changes every output bit half the time.
    with np.errstate(over="ignore"):
        key = key + np.uint64(0x9E3779B97F4A7C15)
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return key ^ (key >> np.uint64(31))
