"""Faults of measures of similarity."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.table import fault


@fault
def cka_forgets_to_center(patch: pytest.MonkeyPatch) -> None:
    """Products are taken of the rows as they are."""
    from lamina.similarity import kernelized, linear

    for module in (linear, kernelized):
        patch.setattr(module, "center", lambda rows, by: rows.to(by.dtype))


@fault
def hsic_counts_pairs_within_groups(patch: pytest.MonkeyPatch) -> None:
    """Pairs within a group are left in the sums."""
    from dataclasses import replace

    from lamina.similarity import jackknifed

    whole = jackknifed.sums_of
    patch.setattr(
        jackknifed,
        "sums_of",
        lambda moments: whole(replace(moments, scalars=moments.scalars * 0, v=moments.v * 0, w=moments.w * 0)),
    )


@fault
def hsic_forgets_n_over_n_minus_2(patch: pytest.MonkeyPatch) -> None:
    """The sum over triples is divided by the number of triples with repetition."""
    from dataclasses import replace

    from lamina.similarity import jackknifed

    whole = jackknifed.debiased_hsic

    def wrong(sums: Any, sizes: Any) -> Any:
        factor = (sizes[0] - 2) / sizes[0]
        names = ("rho0", "rho1", "rho_x", "rho_y", "tau00", "tau10", "tau01")
        return whole(replace(sums, **{name: getattr(sums, name) * factor for name in names}), sizes)

    patch.setattr(jackknifed, "debiased_hsic", wrong)


@fault
def hsic_averages_each_term_apart(patch: pytest.MonkeyPatch) -> None:
    """Pairs, triples and quadruples are averaged over their own numbers: biased where groups differ in size."""
    import numpy as np

    from lamina.similarity import jackknifed

    def apart(sums: Any, sizes: Any) -> Any:
        p1, p2, p3, p4 = sizes
        triples = p1**3 - 3 * p1 * p2 + 2 * p3
        quadruples = p1**4 - 6 * p1**2 * p2 + 8 * p1 * p3 + 3 * p2**2 - 6 * p4
        both = sums.total_x * sums.total_y - 4 * sums.margins + 2 * sums.groups
        return np.asarray(sums.p00 / (p1**2 - p2) - 2 * (sums.rho0 - sums.tau00) / triples + both / quadruples)

    patch.setattr(jackknifed, "debiased_hsic", apart)


@fault
def merging_forgets_the_other_side(patch: pytest.MonkeyPatch) -> None:
    """Of two states the first is kept."""
    from lamina.similarity.linear import LinearState
    from lamina.similarity.panels import PanelState

    for state in (LinearState, PanelState):
        patch.setattr(state, "merge", lambda self, other: None)


@fault
def similarity_pairs_by_order(patch: pytest.MonkeyPatch) -> None:
    """The report compares the first row with the first, whatever examples they are."""
    from lamina import similarity

    whole = similarity.cka

    def cka(x: Any, y: Any, **options: Any) -> Any:
        return whole(x, y, **options, pair="order")

    patch.setattr(similarity, "cka", cka)


@fault
def regression_fits_what_it_scores(patch: pytest.MonkeyPatch) -> None:
    """The fold that is scored is among those that the map is fitted to."""
    from lamina.similarity.least_squares import Moments

    whole = Moments.fitted_without

    def with_all(self: Any, fold: int) -> Any:
        import torch

        blank = Moments(1, self.x.shape[1], self.y.shape[1])
        for name in ("n", "yy", "x", "y", "xx", "xy"):
            each = getattr(self, name)
            setattr(blank, name, torch.cat([torch.zeros_like(each[:1]), each]))
        return whole(blank, 0)

    patch.setattr(Moments, "fitted_without", with_all)


@fault
def regression_deals_rows(patch: pytest.MonkeyPatch) -> None:
    """Rows are dealt into folds and buckets one by one, whatever their groups."""
    from importlib import import_module

    room = import_module("lamina.similarity.linear_regression")
    whole = room.align
    patch.setattr(room, "align", lambda x, y, groups, **options: whole(x, y, **options))


@fault
def regression_forgets_the_intercept(patch: pytest.MonkeyPatch) -> None:
    """Maps go through the origin of what they are given."""
    from lamina.similarity.least_squares import Moments

    whole = Moments.fitted_without

    def through_zero(self: Any, fold: int) -> Any:
        _, _, weights = whole(self, fold)
        return self.x[0] * 0, self.y[0] * 0, weights

    patch.setattr(Moments, "fitted_without", through_zero)


@fault
def cka_counts_pairs_twice(patch: pytest.MonkeyPatch) -> None:
    """The error of CKA is the jackknife's, also where the representations are independent."""
    from lamina.similarity import degenerate

    patch.setattr(degenerate, "less_counted_twice", lambda stderr, pairs, rows: stderr)


@fault
def panels_count_pairs_within_groups(patch: pytest.MonkeyPatch) -> None:
    """Kernel values between rows of a group are left in the sums of panels."""
    from lamina.similarity import kernelized

    whole = kernelized.Panel
    patch.setattr(kernelized, "Panel", lambda *args, within, **options: whole(*args, within=True, **options))


@fault
def kernels_are_not_centered(patch: pytest.MonkeyPatch) -> None:
    """What pairs of rows add to HSIC is taken from kernel values as they are."""
    from lamina.similarity.double_centering import Margins

    patch.setattr(Margins, "centered", lambda self, products, total_x, total_y: products)


@fault
def differences_take_the_jackknife(patch: pytest.MonkeyPatch) -> None:
    """The replicates are those of the jackknife, whatever the error is."""
    from lamina.similarity import estimates

    whole = estimates.corrected
    patch.setattr(estimates, "corrected", lambda value, left, pairs: (whole(value, left, pairs)[0], left))


@fault
def grid_forgets_groups(patch: pytest.MonkeyPatch) -> None:
    """Rows of a group are added up as if each were one of its own, but for the buckets."""
    from lamina.similarity.holding import Layout

    patch.setattr(Layout, "size", property(lambda self: 1))


@fault
def grid_keeps_rows_of_a_group(patch: pytest.MonkeyPatch) -> None:
    """Row sums hold the rows of the own group."""
    from lamina.similarity.holding import Held

    whole = Held._outside
    patch.setattr(Held, "_outside", lambda self, layout, weights, own: whole(self, layout, weights, own * 0))


@fault
def grid_adds_row_sums_one_way(patch: pytest.MonkeyPatch) -> None:
    """The kernel values between two panels count for the rows of the first alone."""
    from lamina.similarity.tiles import _RowSums

    def one_way(self: Any, a: Any, b: Any, values: Any) -> None:
        self._plain[:, b.bucket, a.rows] += values.sum(2)

    patch.setattr(_RowSums, "add", one_way)
