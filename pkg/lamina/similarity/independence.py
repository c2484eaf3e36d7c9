"""HSIC over distinct groups, with some groups left out: the sums of `lamina_kernels.gram.dependence.estimator`.

Which quadruples complete a pair or a triple depends on n, and n on what is left out. So its weights are expanded in
powers of the sizes u: with n and Q the sums over groups of u and u^2, K and L with zeros within groups, r and s their
row sums, R_ig and S_ig their sums over the rows of group g,

    pairs    (n^2 - Q) P00 - 4 n P10 + 4 P20 + 2 P11,            Pab = sum_ij u_i^a u_j^b K_ij L_ij
    triples  n (rho0 - tau00) - (rho1 - tau10) - (rho_x - tau01) - (rho_y - tau01),
        rho_a = sum_i u_i^a r_i s_i,  rho_x = sum_i (sum_j K_ij u_j) s_i,  rho_y = sum_i r_i (sum_j L_ij u_j),
        tau_ab = sum_ig u_i^a u_g^b R_ig S_ig
    both     (sum A) (sum B) - 4 sum_g (sum_h A_gh) (sum_h B_gh) + 2 sum_gh A_gh B_gh,

with A_gh and B_gh the sums of K and L over the rows of two groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from lamina_kernels.gram.dependence.estimator import biased, debiased

Array = NDArray[np.float64]


@dataclass
class Sums:
    """The sums of the module's text. Arrays of one shape: an axis may run over what is left out."""

    p00: Array
    p10: Array
    p20: Array
    p11: Array
    rho0: Array
    rho1: Array
    rho_x: Array
    rho_y: Array
    tau00: Array
    tau10: Array
    tau01: Array
    total_x: Array
    total_y: Array
    margins: Array
    groups: Array

    @classmethod
    def zeros(cls, *shape: int) -> Sums:
        """Return sums over nothing."""
        return cls(**{field.name: np.zeros(shape) for field in fields(cls)})

    @classmethod
    def join(cls, each: Sequence[Sums]) -> Sums:
        """Return several sums one behind another."""
        return cls(
            **{field.name: np.concatenate([getattr(sums, field.name) for sums in each]) for field in fields(cls)}
        )


def debiased_hsic(sums: Sums, sizes: Array) -> Array:
    """Return HSIC over rows of distinct groups; NaN where fewer than four groups are left.

    Args:
        sums: As the module's text names them, K and L with zeros within groups.
        sizes: Sums over groups of size^1 to size^4, [4, ...].
    """
    n, squares = sizes[0], sizes[1]
    pairs = (n**2 - squares) * sums.p00 - 4 * n * sums.p10 + 4 * sums.p20 + 2 * sums.p11
    triples = n * (sums.rho0 - sums.tau00) - (sums.rho1 - sums.tau10)
    triples = triples - (sums.rho_x - sums.tau01) - (sums.rho_y - sums.tau01)
    both = sums.total_x * sums.total_y - 4 * sums.margins + 2 * sums.groups
    return debiased(*map(torch.as_tensor, (pairs, triples, both, sizes))).numpy()


def biased_hsic(sums: Sums, sizes: Array) -> Array:
    """Return HSIC over all quadruples of rows, repeated ones too: tr(K H L H) / n^2 with H = I - 1/n.

    Args:
        sums: `p00`, `rho0`, `total_x` and `total_y` of the whole K and L, the diagonal too.
        sizes: Sums over groups of size^1 to size^4, [4, ...].
    """
    each = sums.p00, sums.rho0, sums.total_x * sums.total_y, sizes[0]
    return biased(*map(torch.as_tensor, each)).numpy()
