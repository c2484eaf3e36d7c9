"""How many rows lie within a distance of each row, a distance for each; and how much each row lies within others'.

The distance is the largest difference of a feature. Rows of one or two features are counted in the order of each
feature, with no tree: within a distance lie the rows between two places in each order. More features take a tree.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

HITS = 2**20
"""Rows within reach that a tree lists at most (20 for each row if these are more) to say how much each is reached."""
LEAF = 48
"""Rows of a leaf. Counting walks the edges of large boxes: in scipy's leaves of 10 it takes half as long again."""


class Strips:
    """The rows j with |z_i - z_j| <= radius_i, for each row i, that are of other groups than i.

    Args:
        z: float64 [n, d], finite.
        radii: float64 [n].
        codes: int64 [n], each row's group, where rows of a group stand together; `arange(n)` hides row i alone.

    Attributes:
        counts: int64 [n], how many they are.
    """

    def __init__(self, z: np.ndarray, radii: np.ndarray, codes: np.ndarray) -> None:
        self._z, self._radii, self._codes = z, radii, codes
        self._spans = [_span(feature, radii) for feature in z.T] if z.shape[1] <= 2 else []
        self.counts = self._all() - 1
        for i, _ in self._pairs_within_groups():
            self.counts[i] -= 1

    def reach(self, weights: np.ndarray) -> np.ndarray:
        """Return for each row j the sum of the weights of the rows i that it lies within reach of; exact up to d = 2.

        Beyond, the sum is that over a sample of the rows i, scaled up.
        """
        if not self._spans:
            return self._sampled(weights)
        if len(self._spans) == 1:
            ((place, low, high),) = self._spans
            steps = np.bincount(low, weights, len(low) + 1) - np.bincount(high, weights, len(low) + 1)
            reached = np.cumsum(steps)[place]
        else:
            reached = self._stabbed(weights)
        reached -= weights
        for i, j in self._pairs_within_groups():
            reached[j] -= weights[i]
        return reached

    def _all(self) -> np.ndarray:
        """Return the counts over all groups, the row itself with them."""
        if not self._spans:
            from scipy.spatial import KDTree

            tree = KDTree(self._z, LEAF)
            counts, order = np.empty(len(self._z), np.int64), tree.indices
            counts[order] = tree.query_ball_point(
                self._z[order], self._radii[order], p=np.inf, return_length=True, workers=torch.get_num_threads()
            )
            return counts
        if len(self._spans) == 1:
            ((_, low, high),) = self._spans
            return high - low
        (place, left, right), (values, low, high) = self._spans
        sequence = np.empty_like(values)
        sequence[place] = values
        upper, lower = (_below(sequence, None, left, right, limit) for limit in (high, low))
        return upper - lower

    def _stabbed(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights of the rectangles around each row: of their corners left of it and below, with signs."""
        (place, left, right), (values, low, high) = self._spans
        across = np.concatenate([left, left, right, right])
        order = np.argsort(across, kind="stable")
        up = np.concatenate([low, high, low, high])[order]
        signed = np.concatenate([weights, -weights, -weights, weights])[order]
        stop = np.searchsorted(across[order], place, side="right")
        return _below(up, signed, np.zeros_like(stop), stop, values + 1)

    def _sampled(self, weights: np.ndarray) -> np.ndarray:
        from scipy.spatial import KDTree

        n = len(self._z)
        budget = max(HITS, 20 * n)
        part = min(1.0, budget / max(int(self.counts.sum()), 1))
        some = np.arange(n)
        if part < 1:
            some = np.sort(np.random.default_rng(0).permutation(n)[: max(int(part * n), 1)])
        tree, reached = KDTree(self._z, LEAF), np.zeros(n)
        for start in range(0, some.size, 4096):
            here = some[start : start + 4096]
            lists = tree.query_ball_point(
                self._z[here], self._radii[here], p=np.inf, return_sorted=False, workers=torch.get_num_threads()
            )
            i, j = np.repeat(here, [len(each) for each in lists]), np.concatenate(lists).astype(np.int64)
            other = self._codes[i] != self._codes[j]
            reached += np.bincount(j[other], weights[i[other]], n)
        return reached * n / some.size

    def _pairs_within_groups(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs of different rows (i, j) of one group, j within reach of i."""
        lag = 1
        while (same := np.flatnonzero(self._codes[lag:] == self._codes[:-lag])).size:
            apart = np.abs(self._z[same] - self._z[same + lag]).max(1)
            first, second = apart <= self._radii[same], apart <= self._radii[same + lag]
            yield same[first], same[first] + lag
            yield same[second] + lag, same[second]
            lag += 1


def _span(values: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each value's place in ascending order, and from which place on up to which the others are in reach."""
    order = np.argsort(values, kind="stable")
    place = np.empty(values.size, np.int64)
    place[order] = np.arange(values.size)
    ascending = values[order]
    low = np.searchsorted(ascending, values - radii, side="left")
    high = np.searchsorted(ascending, values + radii, side="right")
    # a sum is rounded, a difference is what a distance is: the ends are settled by differences
    inside = np.pad(ascending, 1, constant_values=np.inf)
    while (moved := np.abs(values - inside[low]) <= radii).any():
        low -= moved
    while (moved := np.abs(values - ascending[low]) > radii).any():
        low += moved
    while (moved := np.abs(values - inside[high + 1]) <= radii).any():
        high += moved
    while (moved := np.abs(values - ascending[high - 1]) > radii).any():
        high -= moved
    return place, low, high


def _below(
    values: np.ndarray, weights: np.ndarray | None, start: np.ndarray, stop: np.ndarray, limit: np.ndarray
) -> np.ndarray:
    """Return for each query how many values from place `start` to `stop` are below `limit`, or their weights' sum.

    The bits of the values are gone through from the highest, as in a wavelet matrix: those with a 0 move before those
    with a 1, and a query follows the bit of its limit.
    """
    values, start, stop, limit = (each.astype(np.int32) for each in (values, start, stop, limit))
    total = np.zeros(len(limit), np.int64 if weights is None else np.float64)
    for bit in range(max(int(limit.max()), int(values.max())).bit_length() - 1, -1, -1):
        zero = (values >> bit & 1) == 0
        zeros = np.zeros(values.size + 1, np.int32)
        np.cumsum(zero, out=zeros[1:])
        up = (limit >> bit & 1) == 1
        first, last = zeros[start], zeros[stop]
        if weights is None:
            total += np.where(up, last - first, 0)
        else:
            sums = np.concatenate([[0.0], np.cumsum(np.where(zero, weights, 0.0))])
            total += np.where(up, sums[stop] - sums[start], 0.0)
            weights = np.concatenate([weights[zero], weights[~zero]])
        start = np.where(up, zeros[-1] + start - first, first)
        stop = np.where(up, zeros[-1] + stop - last, last)
        values = np.concatenate([values[zero], values[~zero]])
    return total
