"""From what is held of two matrices to the sums of their HSIC: what both plans of a grid have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lamina.similarity.double_centering import Margins
from lamina.similarity.independence import Sums

if TYPE_CHECKING:
    from lamina.similarity.holding import Held, Layout


def sums_of_pair(x: Held, y: Held, pairwise: Mapping[str, Tensor], layout: Layout, *, debiased: bool) -> Sums:
    """Return the sums over all rows, and over those outside of each bucket, [1 + buckets].

    Args:
        x: One matrix.
        y: The other.
        pairwise: [buckets, buckets] by name, as `feature_products` and `tile_products` return them.
        layout: The order of their rows.
        debiased: Whether the sums are over rows of distinct groups.
    """
    count = len(layout.keys)
    sums = Sums.zeros(1 + count)
    for name, matrix in pairwise.items():
        setattr(sums, name, _over_pairs(matrix))
    sums.rho0 = torch.linalg.vecdot(x.r, y.r).numpy()
    sums.total_x, sums.total_y = x.r.sum(1).numpy(), y.r.sum(1).numpy()
    if not debiased:
        return sums
    single, u = layout.size == 1, layout.size
    if single:
        sums.tau00, sums.groups, sums.margins = sums.p00, sums.p00, sums.rho0
    else:
        sums.margins = torch.linalg.vecdot(x.r_groups, y.r_groups).numpy()
    if u is not None:
        sums.p10, sums.p20, sums.p11 = u * sums.p00, u * u * sums.p00, u * u * sums.p00
        sums.tau10 = sums.tau01 = u * sums.tau00
        sums.rho1 = sums.rho_x = sums.rho_y = u * sums.rho0
        return sums
    assert x.r_weighted is not None
    assert y.r_weighted is not None
    sums.rho1 = torch.linalg.vecdot(x.r * layout.u, y.r).numpy()
    sums.rho_x = torch.linalg.vecdot(x.r_weighted, y.r).numpy()
    sums.rho_y = torch.linalg.vecdot(x.r, y.r_weighted).numpy()
    return sums


def centered_products(x: Held, y: Held, products: Tensor, layout: Layout) -> Tensor:
    """Return sums over pairs of rows of the products of centered kernel values, [buckets, buckets]."""
    margins = Margins.of(x.between, y.between, (len(layout) - layout.u)[:, None].clamp(min=1), layout.one_hot)
    return margins.centered(products, layout.one_hot @ x.between, layout.one_hot @ y.between)


def _over_pairs(matrix: Tensor) -> np.ndarray:
    outside = matrix.sum() - matrix.sum(0) - matrix.sum(1) + matrix.diagonal()
    return torch.cat([matrix.sum()[None], outside]).numpy()
