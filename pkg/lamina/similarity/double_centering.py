"""Kernel values that are centered by row and by column, summed over the rows of each two buckets.

Centering rows centers a linear kernel; of any other one K_ij - r_i - r_j + m is what `lamina.similarity.degenerate`
needs, with r_i the mean over the rows of other groups, and m that of r. The product of two such matrices,

    (K_ij - r_i - r_j + m) (L_ij - s_i - s_j + t),

is summed over the rows i of one bucket and j of another by what is known of them apart, so that no kernel value is
looked at twice.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Margins(NamedTuple):
    """What rows have in common with all others, bucket by bucket; those of different rows add.

    Attributes:
        crossed: Sums over a row i and a column j of s_i K_ij + r_i L_ij, [buckets of the row, buckets of the column].
        means: Sums over the rows of each bucket of r, s, r s, and of one, [4, buckets].
    """

    crossed: Tensor
    means: Tensor

    @staticmethod
    def zeros(count: int) -> Margins:
        """Return those of no rows."""
        return Margins(torch.zeros(count, count).double(), torch.zeros(4, count).double())

    @staticmethod
    def of(k: Tensor, l: Tensor, others: Tensor, one_hot: Tensor) -> Margins:  # noqa: E741
        """Return those of some rows.

        Args:
            k: float64 [rows, buckets], sums of K over the rows of each bucket that are in other groups.
            l: The same of L.
            others: [rows, 1], how many rows are in other groups.
            one_hot: [buckets, rows], 1 where a row is in a bucket.
        """
        r, s = k.sum(1, keepdim=True) / others, l.sum(1, keepdim=True) / others
        columns = torch.cat([r, s, r * s, torch.ones_like(r)], 1)
        return Margins(one_hot @ (s * k + r * l), (one_hot @ columns).T)

    def add(self, other: Margins) -> None:
        """Add those of other rows."""
        for mine, theirs in zip(self, other, strict=True):
            mine.add_(theirs)

    def centered(self, products: Tensor, total_x: Tensor, total_y: Tensor) -> Tensor:
        """Return the sums of the centered products, [buckets, buckets]; the diagonal means nothing.

        Args:
            products: Sums of K_ij L_ij over the rows of two buckets.
            total_x: Sums of K_ij.
            total_y: Sums of L_ij.
        """
        r, s, both, n = self.means
        m, t = r.sum() / n.sum(), s.sum() / n.sum()
        of_means = torch.outer(both - t * r - m * s, n) + torch.outer(r, s)
        half = products / 2 - self.crossed + of_means
        return half + half.T + t * total_x + m * total_y + m * t * torch.outer(n, n)
