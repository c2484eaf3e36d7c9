"""HSIC as an average over four rows of four different groups.

**Definition.** For kernel matrices K and L of paired rows, the Hilbert-Schmidt independence criterion is

    HSIC = E[K_12 L_12] - 2 E[K_12 L_13] + E[K_12] E[L_34],

over rows 1 to 4 drawn independently. Rows of one group (the tokens of a document) are not independent, so the
estimator averages K_ij L_ij - 2 K_ij L_ik + K_ij L_kl over all ordered quadruples (i, j, k, l) of rows from four
pairwise distinct groups. Every term has the right expectation, so the average is unbiased whatever happens within
groups. With every row a group of its own this is the unbiased estimator of Song et al. (Journal of Machine Learning
Research 13, 2012, theorem 5).

**One set of quadruples for all three terms** makes the average invariant to K_ij -> K_ij + a_i + a_j + c, which is what
a shift of the features does to a linear kernel: averaged over the permutations of a quadruple the bracket is
(K_ij + K_kl - K_ik - K_jl)(L_ij + L_kl - L_ik - L_jl) / 4, in which a and c cancel. Averaging each term over its own
pairs, triples and quadruples is unbiased too, but only before centering: where groups differ in size, centering at
the sample's mean then leaves a bias of the order of d / groups^3 (measured: a CKA of 0.08 instead of 0 for 20 groups of
1 to 60 rows with d = 1024 and document effects; 0.25 with strong ones). For groups of one size both are the same.

**Sums.** Write u_i for the size of row i's group, n and Q for the sums over groups of u and u^2, K and L with zeros
within groups, r and s for their row sums, r' and s' for row sums in which column j counts u_j times, R_ig and S_ig for
sums over the rows of group g, A_gh and B_gh for sums over the rows of two groups. Counting the (k, l) that complete a
pair, and the l that complete a triple,

    pairs    sum_ijkl K_ij L_ij = sum_ij [(n - u_i - u_j)^2 - Q + u_i^2 + u_j^2] K_ij L_ij
    triples  sum_ijkl K_ij L_ik = sum_i [(n - u_i) r_i s_i - r'_i s_i - r_i s'_i] - sum_ig (n - u_i - 2 u_g) R_ig S_ig
    both     sum_ijkl K_ij L_kl = (sum A) (sum B) - 4 sum_g (sum_h A_gh) (sum_h B_gh) + 2 sum_gh A_gh B_gh.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lamina_kernels.gram.paired.groups import sum_groups


class Sums(NamedTuple):
    """The sums of the module's text for any two of k kernels, float64.

    Attributes:
        pairs: [k, k], the weighted sums of K_ij L_ij.
        rows: [k, n], the row sums r.
        weighted: [k, n], the row sums r'.
        triples: [k, k], the weighted sums of R_ig S_ig.
        cells: [k, k], the sums of A_gh B_gh.
    """

    pairs: Tensor
    rows: Tensor
    weighted: Tensor
    triples: Tensor
    cells: Tensor


def debiased_matrix(sums: Sums, sizes: Tensor | None) -> Tensor:
    """Return HSIC of any two kernels over rows of distinct groups, [k, k]; NaN for fewer than four groups.

    Args:
        sums: K and L with zeros within groups.
        sizes: [groups] int64, the rows of each group, which stand together; None where every row is a group.
    """
    r, n = sums.rows, sums.rows.shape[1]
    ids = None if sizes is None else ids_of(sizes, n)
    of_groups = r.new_ones(n) if sizes is None else sizes.to(r.dtype)
    u = of_groups if ids is None else of_groups[ids]
    crossed = sums.weighted @ r.T
    triples = (r * (n - u)) @ r.T - crossed - crossed.T - sums.triples
    margins = r if ids is None else sum_groups(r.T, ids, len(of_groups)).T
    both = torch.outer(r.sum(1), r.sum(1)) - 4 * (margins @ margins.T) + 2 * sums.cells
    powers = torch.stack([(of_groups**power).sum() for power in range(1, 5)])
    return debiased(sums.pairs, triples, both, powers)


def ids_of(sizes: Tensor, n: int) -> Tensor:
    """Return the group of each of n rows, which stand in the order of their groups."""
    return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes, output_size=n)


def biased_matrix(pairs: Tensor, rows: Tensor) -> Tensor:
    """Return HSIC of any two kernels over all quadruples of rows, [k, k].

    Args:
        pairs: [k, k], sums of K_ij L_ij over all pairs of rows, a row with itself too.
        rows: [k, n], row sums.
    """
    return biased(pairs, rows @ rows.T, torch.outer(rows.sum(1), rows.sum(1)), rows.shape[1])


def quadruples(powers: Tensor) -> Tensor:
    """Return the number of ordered quadruples of rows from four distinct groups.

    It is 24 times the elementary symmetric polynomial of degree 4 of the sizes.

    Args:
        powers: Sums over groups of size^1 to size^4, [4, ...].
    """
    p1, p2, p3, p4 = powers
    return p1**4 - 6 * p1**2 * p2 + 8 * p1 * p3 + 3 * p2**2 - 6 * p4


def debiased(pairs: Tensor, triples: Tensor, both: Tensor, powers: Tensor) -> Tensor:
    """Return HSIC over rows of distinct groups from the three sums over quadruples; NaN for fewer than four groups."""
    number = quadruples(powers)
    return torch.where(number > 0.5, (pairs - 2 * triples + both) / number, torch.nan)


def biased(pairs: Tensor, triples: Tensor, both: Tensor, n: Tensor | int) -> Tensor:
    """Return HSIC over all quadruples of rows, repeated ones too: tr(K H L H) / n^2 with H = I - 1/n.

    Args:
        pairs: Sums of K_ij L_ij over all i and j.
        triples: Sums of K_ij L_ik.
        both: Sums of K_ij L_kl.
        n: The number of rows.
    """
    return pairs / n**2 - 2 * triples / n**3 + both / n**4
