"""States that saw other groups add up, in any order, to what one state would have seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lamina.errors import SchemaError
from lamina.rows.aligned import align
from lamina.rows.centering import centered
from lamina.similarity import kernelized
from lamina.similarity.jackknifed import hsic_of
from lamina.similarity.kernelized import add_panel, panels
from lamina.similarity.linear import LinearState
from lamina.similarity.moment_sums import sums_of
from lamina.similarity.panels import PanelState
from lamina_kernels.gram import RBF
from tests.faults import broken
from tests.similarity.test_cka import SIZES, planted


def linear(parts: list[list[int]], sizes: list[int]) -> float:
    """HSIC from a state for each part of the groups, merged in the order given."""
    x, y, groups = planted(sizes)
    aligned, centers = centered(align(x, y, groups=groups))
    buckets, keys = aligned.groups.buckets()
    states = []
    for part in parts:
        state = LinearState(centers, aligned.groups.sizes, buckets, len(keys))
        for block in aligned.blocks(7, np.isin(np.arange(len(keys)), part)):
            state.update(block)
        states.append(state)
    for other in states[1:]:
        states[0].merge(other)
    rows = np.concatenate([np.zeros((1, 4)), states[0].rows.sum(0, keepdims=True)])
    return float(hsic_of(sums_of(states[0].moments["xy"].total()), rows[1:], True)[0])


def rbf(parts: list[list[int]], sizes: list[int]) -> float:
    """The same from panels."""
    x, y, groups = planted(sizes)
    aligned, centers = centered(align(x, y, groups=groups))
    buckets, keys = aligned.groups.buckets()
    cut = panels(aligned)
    states = []
    for part in parts:
        state = PanelState(len(keys))
        for index in part:
            if index < len(cut):
                kernels = RBF(1.5), RBF(2.0)
                add_panel(
                    state, aligned, cut[index], cut, centers=centers, kernels=kernels, buckets=buckets, within=False
                )
        states.append(state)
    for other in states[1:]:
        states[0].merge(other)
    rows = np.zeros((1 + len(keys), 4))
    np.add.at(rows[1:], buckets, aligned.groups.sizes[:, None].astype(float) ** np.arange(1, 5))
    return float(hsic_of(states[0].sums("xy"), rows, True)[0])


def check_merging(hsic: Callable[[list[list[int]], list[int]], float], sizes: list[int]) -> None:
    every = list(range(len(sizes)))
    whole = hsic([every], sizes)
    for parts in ([every[:3], every[3:]], [every[3:], every[:3]], [[i] for i in reversed(every)], [every, []]):
        assert hsic(parts, sizes) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("hsic", [linear, rbf])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_order_of_merging(
    hsic: Callable[[list[list[int]], list[int]], float], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernelized, "PANEL", 4)
    check_merging(hsic, sizes)


@pytest.mark.parametrize("hsic", [linear, rbf])
def test_a_merge_that_loses_something_is_noticed(
    hsic: Callable[[list[list[int]], list[int]], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernelized, "PANEL", 4)
    with broken("merging_forgets_the_other_side"), pytest.raises(AssertionError):
        check_merging(hsic, SIZES["equal"])


def test_a_divided_group_does_not_merge() -> None:
    x, y, groups = planted(SIZES["equal"])
    aligned, centers = centered(align(x, y, groups=groups))
    states = [LinearState(centers, aligned.groups.sizes, np.arange(9), 9) for _ in range(2)]
    states[0].update(aligned.gather(np.arange(2)))
    with pytest.raises(SchemaError, match="not complete"):
        states[1].merge(states[0])
    with pytest.raises(SchemaError, match="do not stand together"):
        states[0].update(aligned.gather(np.array([5])))


def test_states_of_a_stream_of_one_row_at_a_time() -> None:
    x, y, groups = planted(SIZES["unequal"])
    aligned, centers = centered(align(x, y, groups=groups))
    once, bit_by_bit = (LinearState(centers, aligned.groups.sizes, np.arange(10), 10) for _ in range(2))
    once.update(aligned.gather(np.arange(len(x))))
    for row in range(len(x)):
        bit_by_bit.update(aligned.gather(np.array([row])))
    for name in ("c", "d", "x", "y", "v", "w", "e", "f", "scalars"):
        mine, theirs = (getattr(state.moments["xy"], name) for state in (once, bit_by_bit))
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
