"""What CKA must give, from whole kernel matrices in float64 and loops that spell out the definition."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def by_loops(k: Array, l: Array, groups: Array) -> float:  # noqa: E741 - the letter of the definition
    """HSIC as the average over all ordered quadruples of rows of distinct groups: n^4 steps."""
    total, count = 0.0, 0
    for i, j, m, q in permutations(range(len(k)), 4):
        if len({groups[i], groups[j], groups[m], groups[q]}) == 4:
            total += k[i, j] * (l[i, j] - 2 * l[i, m] + l[m, q])
            count += 1
    return total / count


def hsic(k: Array, l: Array, groups: Array) -> float:  # noqa: E741
    """The same by matrices: sums over k, then over l, of what a pair (i, j) and a triple (i, j, m) leave."""
    same = groups[:, None] == groups[None]
    k, l = np.where(same, 0, k), np.where(same, 0, l)  # noqa: E741
    z = (groups[:, None] == np.unique(groups)[None]).astype(float)
    sizes = z.sum(0)
    u, n, squares = z @ sizes, sizes.sum(), (sizes**2).sum()
    pairs = (k * l * ((n - u[:, None] - u) ** 2 - (squares - u[:, None] ** 2 - u**2))).sum()
    triples = 0.0
    for weight_i, weight_j, weight_m in ((n - u, u**0, u**0), (-(u**0), u, u**0), (-(u**0), u**0, u)):
        left, right = k * weight_j, l * weight_m
        triples += (weight_i * (left.sum(1) * right.sum(1) - ((left @ z) * (right @ z)).sum(1))).sum()
    a, b = z.T @ k @ z, z.T @ l @ z
    both = a.sum() * b.sum() - 4 * a.sum(1) @ b.sum(1) + 2 * (a * b).sum()
    ones = np.outer(sizes, sizes) * (1 - np.eye(len(sizes)))
    count = ones.sum() ** 2 - 4 * ones.sum(1) @ ones.sum(1) + 2 * (ones * ones).sum()
    return (pairs - 2 * triples + both) / count


def cka(k: Array, l: Array, groups: Array) -> float:  # noqa: E741
    """Debiased CKA of two kernel matrices."""
    return hsic(k, l, groups) / np.sqrt(hsic(k, k, groups) * hsic(l, l, groups))


def biased_cka(k: Array, l: Array) -> float:  # noqa: E741
    """CKA of two kernel matrices that are centered by H = I - 1/n."""
    h = np.eye(len(k)) - 1 / len(k)
    k, l = h @ k @ h, h @ l @ h  # noqa: E741
    return float((k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum()))


def linear(x: Array) -> Array:
    """The linear kernel of centered rows."""
    centered = x - x.mean(0)
    return centered @ centered.T


def rbf(x: Array, bandwidth: float) -> Array:
    """The RBF kernel."""
    return np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * bandwidth**2))
