"""Triggers of the flight recorder."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest

from lamina.recording.triggers import Above, NonFinite, Spike, Watch


def fired(ask: Callable[[Mapping[str, float]], bool], values: list[float]) -> list[int]:
    return [index for index, value in enumerate(values) if ask({"loss": value})]


def noise(count: int, scale: float = 1.0) -> list[float]:
    generator = random.Random(0)
    return [scale * generator.gauss(3.0, 0.1) for _ in range(count)]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_spike_is_found_at_any_scale(scale: float) -> None:
    values = noise(200, scale)
    values[150] = 4.0 * scale
    assert fired(Spike("loss").watch(), values) == [150]


def test_a_loss_that_falls_or_drifts_is_no_spike() -> None:
    falling = [value * math.exp(-index / 50) for index, value in enumerate(noise(300))]
    assert fired(Spike("loss").watch(), falling) == []


def test_a_spike_does_not_hide_the_next() -> None:
    values = noise(100)
    for index in (60, 61, 64, 70):
        values[index] = 10.0
    assert fired(Spike("loss").watch(), values) == [60, 61, 64, 70]


def test_the_first_values_are_no_spikes() -> None:
    assert fired(Spike("loss", window=16).watch(), [1.0, 50.0, 1.0, 80.0]) == []


def test_values_that_are_not_finite_are_no_spikes() -> None:
    values = noise(100)
    values[50:60] = [math.nan, math.inf] * 5
    values[80] = 9.0
    assert fired(Spike("loss").watch(), values) == [80]


def test_two_watches_of_a_spike_share_nothing() -> None:
    spike = Spike("loss", window=4)
    first, second = spike.watch(), spike.watch()
    fired(first, [1.0, 1.1, 1.0, 1.1])
    assert fired(second, [50.0]) == []
    assert fired(first, [50.0]) == [0]


def test_above_is_strict_and_silent_without_a_value() -> None:
    ask = Above("loss", 2.0).watch()
    assert fired(ask, [1.0, 2.0, 2.1, math.inf, math.nan]) == [2, 3]
    assert not ask({"other": 5.0})


def test_non_finite_looks_at_one_or_all() -> None:
    assert NonFinite().watch()({"loss": 1.0, "norm": math.inf})
    assert not NonFinite("loss").watch()({"loss": 1.0, "norm": math.inf})
    assert NonFinite("loss").watch()({"loss": math.nan})
    assert not NonFinite("loss").watch()({"norm": math.nan})


def test_functions_see_all_metrics_of_a_step_together() -> None:
    seen: list[dict[str, float]] = []

    def ratio(metrics: Mapping[str, float]) -> bool:
        seen.append(dict(metrics))
        return metrics["loss"] > metrics["limit"]

    watch = Watch([ratio], rest=1)
    watch.log({"loss": 2.0}, step=0)
    assert watch.fired(before=0) == []
    watch.log({"limit": 1.0}, step=0)
    watch.log({"loss": 1.0, "limit": 2.0}, step=1)
    assert watch.fired(before=1) == [("ratio", 0)]
    assert watch.fired() == []
    assert seen == [{"loss": 2.0, "limit": 1.0}, {"loss": 1.0, "limit": 2.0}]
