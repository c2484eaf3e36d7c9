"""What neural collapse is computed from: sums by class, and products within classes, by bucket of groups."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ClassSums:
    """Rows and their sums, by bucket and class. Feed it with `update`, in any number of processes; add with `merge`.

    Attributes:
        n: float64 [buckets, classes].
        x: float64 [buckets, classes, d].
    """

    def __init__(self, buckets: int, classes: int, d: int) -> None:
        self.n = torch.zeros(buckets, classes, dtype=torch.float64)
        self.x = torch.zeros(buckets, classes, d, dtype=torch.float64)

    def update(self, x: Tensor, classes: np.ndarray, buckets: np.ndarray) -> None:
        """Add rows [k, d] of these classes and buckets; sums within the block are in the rows' dtype."""
        at = torch.from_numpy(buckets * self.n.shape[1] + classes)
        self.n.view(-1).index_add_(0, at, torch.ones(len(at), dtype=torch.float64))
        self.x += torch.zeros_like(self.x, dtype=x.dtype).view(-1, x.shape[1]).index_add_(0, at, x).view_as(self.x)

    def merge(self, other: ClassSums) -> None:
        """Add what another was fed."""
        self.n, self.x = self.n + other.n, self.x + other.x

    def means(self) -> Tensor:
        """Return the class means over all rows, [classes, d]."""
        return self.x.sum(0) / self.n.sum(0)[:, None]


TILES = 4
"""Stripes of columns in which a product with itself is taken: what lies below the diagonal is not computed."""
PIECES = 16
"""Blocks whose products are summed in the rows' dtype before they are added in float64."""


class Scatter:
    """Products of deviations from the class means, and wrong decisions, by bucket. `update` and `merge` as above.

    Args:
        means: What is subtracted from the rows of a class before products, [classes, d].
        buckets: How many buckets there are.
        classifier: Weights and bias; None compares the nearest mean with the row's class.
    """

    def __init__(self, means: Tensor, buckets: int, classifier: tuple[Tensor, Tensor] | None) -> None:
        d = means.shape[1]
        self._means, self._classifier = means, classifier
        self._products = torch.zeros(buckets, d, d, dtype=torch.float64)
        self._recent, self._blocks = torch.zeros(0), 0
        self.wrong = torch.zeros(buckets, dtype=torch.float64)

    def product(self, bucket: int | None = None) -> Tensor:
        """Return the products of a bucket, or of all together, float64 [d, d]."""
        self._settle()
        upper = (self._products.sum(0) if bucket is None else self._products[bucket]).triu()
        return upper + upper.triu(1).T

    def update(self, x: Tensor, classes: np.ndarray, buckets: np.ndarray) -> None:
        """Add rows [k, d] of these classes and buckets, which ascend; x is changed."""
        if not len(x):
            return
        means, of_rows = self._means.to(x.dtype), torch.from_numpy(classes)
        # |x - m|^2 - |x|^2 for x = w + m_c, from what is left of x without the mean of its class
        within, alike = x.sub_(means[of_rows]), means @ means.T
        nearest = (alike.diagonal() - 2 * (alike[of_rows] + within @ means.T)).argmin(1)
        decided = of_rows
        if self._classifier is not None:
            weights, bias = (each.to(x.dtype) for each in self._classifier)
            decided = (within @ weights.T + (means @ weights.T + bias)[of_rows]).argmax(1)
        self.wrong.index_add_(0, torch.from_numpy(buckets), (nearest != decided).double())
        if not self._blocks:
            self._recent = torch.zeros_like(self._products, dtype=x.dtype)
        starts = np.flatnonzero(np.diff(buckets, prepend=-1))
        for start, stop in zip(starts, np.append(starts[1:], buckets.size), strict=True):
            _add_upper(self._recent[int(buckets[start])], within[int(start) : int(stop)])
        self._blocks += 1
        if self._blocks == PIECES:
            self._settle()

    def merge(self, other: Scatter) -> None:
        """Add what another was fed."""
        self._settle()
        other._settle()
        self._products, self.wrong = self._products + other._products, self.wrong + other.wrong

    def _settle(self) -> None:
        if self._blocks:
            self._products += self._recent
            self._recent, self._blocks = torch.zeros(0), 0


def _add_upper(into: Tensor, rows: Tensor) -> None:
    """Add to `into` [d, d] what rows' rows has on and above its diagonal, and some of what it has below."""
    d = rows.shape[1]
    step = max(-(-d // TILES), 64)
    for start in range(0, d, step):
        into[start : start + step, start:].addmm_(rows[:, start : start + step].T, rows[:, start:])


def nc1_to_nc3(n: Tensor, means: Tensor, products: Tensor, moved: Tensor, weights: Tensor | None) -> list[float]:
    """Return nc1, nc2_norm, nc2_angle, and with weights nc3.

    Args:
        n: Rows of each class.
        means: The class means.
        products: The sum of products of deviations [d, d] from `means - moved`.
        moved: How far the means lie from what the products are around.
        weights: The classifier's weights.
    """
    count = len(n)
    centered = means - means.mean(0)
    _, scales, directions = torch.linalg.svd(centered, full_matrices=False)
    kept = scales > 1e-10 * scales[0]
    scales, directions = scales[kept], directions[kept]
    along = ((directions @ products) * directions).sum(1) - n @ (moved @ directions.T).square()
    # B = M'M / C, so that tr(W B^+) / C is the sum over directions of v'Wv / s^2
    nc1 = (along / scales.square()).sum() / n.sum()
    norms = centered.norm(dim=1)
    cosines = (centered @ centered.T) / torch.outer(norms, norms)
    apart = (cosines + 1 / (count - 1)).abs()
    angle = (apart.sum() - apart.diagonal().sum()) / (count * (count - 1))
    found = [nc1, norms.std(correction=0) / norms.mean(), angle]
    if weights is not None:
        found.append((weights / weights.norm() - centered / centered.norm()).norm())
    return [float(value) for value in found]
