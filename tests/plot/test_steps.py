from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.plot import steps as axis
from lamina.plot.steps import spread_steps, step_axis, step_ticks, value_ticks
from tests.faults import broken

STEPS = st.lists(st.integers(0, 10**6), min_size=1, max_size=60, unique=True).map(sorted)


@given(STEPS, st.integers(2, 20))
def test_spread_steps_keeps_order_and_both_ends(steps: list[int], count: int) -> None:
    chosen = spread_steps(steps, count)
    assert len(chosen) == min(count, len(steps))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(steps)
    assert chosen[0] == steps[0]
    assert chosen[-1] == steps[-1]


def test_spread_steps_are_even_on_a_logarithmic_axis() -> None:
    assert spread_steps(list(range(1000)), 4) == [0, 9, 99, 999]


@pytest.mark.parametrize("last", [0, 1, 7, 99, 100, 12_345])
def test_step_ticks_start_at_zero_and_stay_in_range(last: int) -> None:
    ticks = step_ticks(last)
    assert ticks[0] == 0
    assert ticks == sorted(set(ticks))
    assert ticks[-1] <= last


@given(st.floats(1e-9, 1e9), st.floats(1.0, 1e6))
def test_value_ticks_lie_on_the_axis_and_are_few(low: float, ratio: float) -> None:
    ticks = value_ticks(low, low * ratio)
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert len(ticks) <= 8


def test_the_step_axis_is_linear_at_zero_and_says_its_unit() -> None:
    encoding = step_axis(100).to_dict()
    assert encoding["scale"]["type"] == "symlog"
    assert encoding["scale"]["domain"] == [0, 100]
    assert "updates" in encoding["title"]


def test_thin_leaves_few_steps_alone() -> None:
    frame = pl.DataFrame({"run": ["a", "b"], "step": [0, 5], "value": [1.0, 2.0]})
    assert axis.thin(frame, ["run"], 2).equals(frame)


def test_thin_averages_neighbors_and_never_across_runs() -> None:
    steps = list(range(2000))
    frame = pl.concat(
        [
            pl.DataFrame({"run": run, "step": steps, "value": [offset] * 2000})
            for run, offset in (("a", 1.0), ("b", 5.0))
        ]
    )
    thinned = axis.thin(frame, ["run"], 50)
    assert thinned["step"].n_unique() <= 50
    assert thinned.filter(run="a")["value"].unique().to_list() == [1.0]
    assert thinned.filter(run="b")["value"].unique().to_list() == [5.0]


def test_thin_is_a_mean_in_every_bin() -> None:
    frame = pl.DataFrame({"run": "a", "step": range(1000), "value": [float(step) for step in range(1000)]})
    thinned = axis.thin(frame, ["run"], 20)
    starts = [*thinned["step"].to_list(), 1000]
    for start, end, value in zip(starts[:-1], starts[1:], thinned["value"], strict=True):
        assert math.isclose(value, (start + end - 1) / 2)


def test_thin_is_shown_to_fail_when_it_mixes_runs() -> None:
    with broken("thin_mixes_runs"), pytest.raises(AssertionError):
        test_thin_averages_neighbors_and_never_across_runs()
