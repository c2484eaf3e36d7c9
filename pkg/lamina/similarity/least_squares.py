"""Least squares with folds held out, from moments."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lamina.rows.aligned import Aligned
from lamina.rows.centering import rows_at_a_time

_ROUNDING = 1e-12
"""Directions of x whose variance is below this part of the largest are taken for none."""


class Moments:
    """Sums over rows, a fold each: rows, x, y, squares of y, products of x with x, and of x with y.

    Feed it with `update`, in any number of processes; add with `merge`, in any order.
    """

    def __init__(self, folds: int, dx: int, dy: int) -> None:
        self.n, self.yy, self.x, self.y = (torch.zeros(folds, *shape).double() for shape in ((), (), (dx,), (dy,)))
        self.xx, self.xy = (torch.zeros(folds, dx, width).double() for width in (dx, dy))

    def update(self, x: Tensor, y: Tensor, folds: np.ndarray) -> None:
        """Add rows, float64, of these folds."""
        for fold in np.unique(folds):
            rows = torch.from_numpy(np.flatnonzero(folds == fold))
            a, b = x[rows], y[rows]
            self.n[fold] += len(rows)
            self.x[fold] += a.sum(0)
            self.y[fold] += b.sum(0)
            self.yy[fold] += b.square().sum()
            self.xx[fold] += a.T @ a
            self.xy[fold] += a.T @ b

    def merge(self, other: Moments) -> None:
        """Add what another was fed."""
        for name in ("n", "yy", "x", "y", "xx", "xy"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def fitted_without(self, fold: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the means of x and of y and the map [dx, dy] that the rows of the other folds give."""
        n, x, y, xx, xy = (each.sum(0) - each[fold] for each in (self.n, self.x, self.y, self.xx, self.xy))
        mean_x, mean_y = x / n, y / n
        xx, xy = xx - n * torch.outer(mean_x, mean_x), xy - n * torch.outer(mean_x, mean_y)
        return mean_x, mean_y, smallest_solution(xx, xy)


def smallest_solution(xx: Tensor, xy: Tensor) -> Tensor:
    """Return the smallest b with xx b = xy, for xx a matrix of products."""
    # features in units of their own spread: an affine map of x must not decide which directions count as none
    scale = xx.diagonal().clamp_min(0).sqrt()
    scale = torch.where(scale > 0, 1 / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0)
    values, vectors = torch.linalg.eigh(xx * scale[:, None] * scale)
    kept = values > _ROUNDING * len(values) * values.amax().clamp_min(0) if len(values) else values > 0
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1), 0)
    return scale[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ (scale[:, None] * xy))))


class Folds:
    """Paired rows whose groups are dealt into folds.

    Args:
        aligned: The rows.
        centers: What is subtracted from x and y before products; the result depends on it by rounding alone.
        of_groups: int64 [groups], the fold of each group.
        folds: How many.
        seed: None leaves pairs as they are. A number puts the groups of y in a random order and pairs by order: where
            groups are of one size, each group of x stands beside another group of y.
    """

    def __init__(
        self,
        aligned: Aligned,
        centers: tuple[Tensor, Tensor],
        of_groups: np.ndarray,
        folds: int,
        *,
        seed: int | None = None,
    ) -> None:
        self._aligned, self._folds, self._of_groups = aligned, folds, of_groups
        self._centers = tuple(center.double() for center in centers)
        self._order = None if seed is None else _shuffled(aligned.groups.codes, np.random.default_rng(seed))
        moments = Moments(folds, len(centers[0]), len(centers[1]))
        for x, y, codes in self._blocks():
            moments.update(x, y, of_groups[codes])
        self._moments = moments
        self._fits = [moments.fitted_without(fold) for fold in range(folds)]

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        size = rows_at_a_time(self._aligned)
        for start in range(0, len(self._aligned), size):
            rows = np.arange(start, min(start + size, len(self._aligned)))
            block = self._aligned.gather(rows)
            other = block.y if self._order is None else self._aligned.gather(self._order[rows]).y
            yield block.x.double() - self._centers[0], other.double() - self._centers[1], block.codes

    def scores(self, buckets: np.ndarray, count: int) -> np.ndarray:
        """Return sums of squares of the held-out rows by bucket, [buckets, 2]: left over, and around the mean.

        Args:
            buckets: int64 [groups], the bucket of each group.
            count: How many buckets there are.
        """
        sums = torch.zeros(count, 2).double()
        for x, y, codes in self._blocks():
            of_rows, folds = buckets[codes], self._of_groups[codes]
            for fold in np.unique(folds):
                rows = torch.from_numpy(np.flatnonzero(folds == fold))
                mean_x, mean_y, weights = self._fits[fold]
                around = y[rows] - mean_y
                left = around - (x[rows] - mean_x) @ weights
                squares = torch.stack([left.square().sum(1), around.square().sum(1)], 1)
                sums.index_add_(0, torch.from_numpy(of_rows)[rows], squares)
        return sums.numpy()

    def in_sample(self) -> np.ndarray:
        """Return the same, [2], of the rows that each map was fitted to."""
        sums = np.zeros(2)
        for fold, (mean_x, mean_y, weights) in enumerate(self._fits):
            n, yy, xy = (each.sum(0) - each[fold] for each in (self._moments.n, self._moments.yy, self._moments.xy))
            around = float(yy - n * mean_y.square().sum())
            predicted = float((weights * (xy - n * torch.outer(mean_x, mean_y))).sum())
            sums += [around - predicted, around]
        return sums


def _shuffled(codes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the rows with their groups, which stand together, in a random order."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    sizes = np.diff(starts, append=codes.size)
    order = generator.permutation(starts.size)
    ends = np.cumsum(sizes[order])
    return np.repeat(starts[order] - (ends - sizes[order]), sizes[order]) + np.arange(codes.size)
