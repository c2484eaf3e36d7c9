"""HSIC with any kernel: panels of rows against all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lamina.errors import SchemaError
from lamina.rows.centering import center, centered
from lamina.similarity import jackknifed
from lamina.similarity.jackknifed import Hsic, hsic_of, result_of
from lamina.similarity.linear import PAIRS
from lamina.similarity.panels import Columns, Panel, PanelState

if TYPE_CHECKING:
    from lamina.rows.aligned import Aligned

PANEL = 4096
"""Rows of a panel, and of the columns that it meets at a time."""
SAMPLE = 1000
"""Rows whose distances have the median that a bandwidth is a multiple of."""


def hsic_of_rows(aligned: Aligned, *, kernel: str, debiased: bool, bandwidth: float, seed: int) -> Hsic:
    """HSIC with linear or RBF kernels, by whatever takes less time.

    Raises:
        SchemaError: There is no such kernel.
    """
    if kernel not in ("linear", "rbf"):
        raise SchemaError(f"kernel={kernel!r}", hint="it is 'linear' or 'rbf'")
    if kernel == "linear" and not jackknifed.prefers_panels(aligned):
        return jackknifed.hsic_linear(aligned, debiased=debiased)
    return hsic_panels(aligned, kernel=kernel, debiased=debiased, bandwidth=bandwidth, seed=seed)


def hsic_panels(aligned: Aligned, *, kernel: str, debiased: bool, bandwidth: float = 1.0, seed: int = 0) -> Hsic:
    """HSIC with kernels (distances too), from panels of rows against all rows."""
    from lamina_kernels.gram import Distance, Linear

    if not aligned.gathers:
        raise SchemaError(
            f"an iterable with kernel={kernel!r}", hint="give a tensor or a stored site: rows meet all rows"
        )
    aligned, centers = centered(aligned)
    kernels, bandwidths = (Linear(), Linear()), {}
    if kernel == "rbf" and len(aligned):
        kernels, bandwidths = _rbf(aligned, centers, bandwidth, seed)
    elif kernel == "distance":
        # in single precision a distance that is far below the rows' norms would be rounding
        kernels, centers = (Distance(), Distance()), (centers[0].double(), centers[1].double())
    buckets, keys = aligned.groups.buckets()
    state = PanelState(len(keys))
    cut = panels(aligned)
    for panel in cut:
        add_panel(state, aligned, panel, cut, centers=centers, kernels=kernels, buckets=buckets, within=not debiased)
    rows = np.zeros((1 + len(keys), 4))
    sizes = aligned.groups.sizes
    np.add.at(rows[1:], buckets, sizes[:, None].astype(float) ** np.arange(1, 5))
    values = {pair: hsic_of(state.sums(pair), rows, debiased) for pair in PAIRS}
    # centering rows has centered the linear kernel
    linear = kernel == "linear"
    products = {pair: state.pairwise[pair, "p00"].numpy() if linear else state.products(pair) for pair in PAIRS}
    return result_of(aligned, values, keys, rows, centers[0].dtype, bandwidths, products if debiased else None)


def panels(aligned: Aligned) -> list[range]:
    """Cut the rows into pieces of whole groups, of about `PANEL` rows."""
    ends = np.cumsum(aligned.groups.sizes[_order(aligned)])
    cuts, last = [0], 0
    for before, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        if end - last > PANEL and before > last:
            cuts.append(before)
            last = before
    return [range(start, stop) for start, stop in zip(cuts, [*cuts[1:], len(aligned)], strict=True) if stop > start]


def add_panel(
    state: PanelState,
    aligned: Aligned,
    panel: range,
    others: list[range],
    *,
    centers: tuple[Tensor, Tensor],
    kernels: tuple[Any, Any],
    buckets: np.ndarray,
    within: bool,
) -> None:
    """Let a panel meet all rows, which `others` cuts and it is one of, and add it to the state."""
    from lamina_kernels.gram import hsic_sums

    groups, count = aligned.groups, state.count

    def read(rows: range) -> tuple[Tensor, Tensor, Columns]:
        block = aligned.gather(np.arange(rows.start, rows.stop))
        x = center(block.x, centers[0])
        y = x if block.y is block.x else center(block.y, centers[1])
        return x, y, Columns.of(block.codes, groups.sizes, buckets, count)

    x, y, own = read(panel)
    codes = groups.codes[panel.start : panel.stop]
    of_rows, sizes = torch.from_numpy(buckets[codes]), torch.from_numpy(groups.sizes[codes])
    meeting = Panel(state, own, of_rows, sizes, n=len(aligned), within=within)
    kernel_x, kernel_y = kernels

    for other in others:
        if other == panel and not within:
            sums = hsic_sums(x, y, kernel_x=kernel_x, kernel_y=kernel_y, groups=own.ids)
            meeting.meet(own, sums, diagonal=True)
            continue
        x_other, y_other, columns = read(other)
        sums = hsic_sums(x, y, x_other, y_other, kernel_x=kernel_x, kernel_y=kernel_y, groups_other=columns.ids)
        meeting.meet(columns, sums, diagonal=other == panel)
    meeting.end()


def _rbf(aligned: Aligned, centers: tuple[Tensor, Tensor], multiple: float, seed: int) -> tuple[Any, dict[str, float]]:
    from lamina_kernels.gram import RBF

    if not multiple > 0:
        raise SchemaError(f"bandwidth={multiple}", hint="it is a positive multiple of the median distance")
    n = len(aligned)
    # drawn in the order of the rows' groups, so that the order in which they are stored does not matter
    drawn = np.random.default_rng(seed).choice(n, min(n, SAMPLE), replace=False)
    block = aligned.gather(np.argsort(aligned.groups.codes, kind="stable")[np.sort(drawn)])
    bandwidths = []
    for side, rows, mean in (("x", block.x, centers[0]), ("y", block.y, centers[1])):
        median = float(torch.pdist(center(rows, mean).double()).median()) if len(rows) > 1 else 1.0
        if not median > 0:
            raise SchemaError(f"the median distance between the rows of {side} is 0", hint="most of its rows are equal")
        bandwidths.append(multiple * median)
    return (RBF(bandwidths[0]), RBF(bandwidths[1])), {"bandwidth_x": bandwidths[0], "bandwidth_y": bandwidths[1]}


def _order(aligned: Aligned) -> np.ndarray:
    """Return the groups in the order in which their rows stand."""
    codes = aligned.groups.codes
    return codes[np.flatnonzero(np.diff(codes, prepend=-1))]
