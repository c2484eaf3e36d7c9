from __future__ import annotations

import numpy as np
import pytest

from bench import harness
from bench.agreement import DisagreementError, Within
from bench.harness import Contender, cells, compare, interleave, percent, speeds
from bench.limits import Limit
from tests.faults import broken

X = np.arange(1.0, 5.0)
calls: list[str] = []


def doubled(x, *, device, name, off=0.0):
    def run():
        calls.append(name)
        return {"value": 2 * x + off}

    return run


def contender(name: str, off: float = 0.0) -> Contender:
    return Contender(name, f"{__name__}:doubled", {"name": name, "off": off}, needs={"adding": 30.0})


def limit(seconds: float = 2.0, work: float = 100.0) -> Limit:
    def run() -> float:
        calls.append("limit")
        return seconds

    return Limit("adding", "add", work, run)


def compared(*contenders: Contender) -> dict[str, list[float]]:
    calls.clear()
    return compare(
        contenders,
        {"x": X},
        {"value": 2 * X},
        rule=Within(1e-6),
        limits=[limit()],
        repetitions=3,
        device="cpu",
        peers=None,
        description="doubling",
    )


def test_cases_take_turns_and_keep_their_phases():
    order: list[str] = []

    def case(name: str) -> dict[str, float]:
        order.append(name)
        return {"work": float(len(order)), "close": 0.5}

    seconds = interleave({name: lambda name=name: case(name) for name in "abc"}, 2, "turns")
    assert order == ["a", "b", "c", "a", "b", "c"]
    assert seconds == {
        "a": {"work": [1.0, 4.0], "close": [0.5, 0.5]},
        "b": {"work": [2.0, 5.0], "close": [0.5, 0.5]},
        "c": {"work": [3.0, 6.0], "close": [0.5, 0.5]},
    }


def test_running_each_case_to_its_end_would_be_seen():
    with broken("bench_takes_no_turns"), pytest.raises(AssertionError):
        test_cases_take_turns_and_keep_their_phases()


def test_contenders_and_limits_are_timed_in_one_run(monkeypatch):
    monkeypatch.setattr(harness.clock, "REPETITION", 1e-9)
    seconds = compared(contender("a"), contender("b"))
    assert {name: len(values) for name, values in seconds.items()} == {"adding": 3, "a": 3, "b": 3}
    # A result of each, a round in which each warms up first, two rounds.
    assert calls == ["a", "b", *["limit", "a", "a", "b", "b"], *["limit", "a", "b"] * 2]


def test_a_mismatch_aborts_before_anything_is_timed():
    with pytest.raises(DisagreementError, match=r"b, value: off by 0\.001, where 8e-06 is allowed"):
        compared(contender("a"), contender("b", off=1e-3))
    assert calls == ["a", "b"]


def test_timing_without_comparing_would_be_seen():
    # pytest.fail, not AssertionError: what `raises` says when nothing was raised.
    with broken("bench_compares_nothing"), pytest.raises(pytest.fail.Exception):
        test_a_mismatch_aborts_before_anything_is_timed()


def test_percent_is_the_share_of_the_time_that_the_limits_explain():
    copying = Limit("copying", "B", 10.0, lambda: 1.0)
    medians = {"adding": 2.0, "copying": 1.0}
    # 100 additions in 2 s, 10 bytes in 1 s: 30 additions take 0.6 s, 4 bytes 0.4 s.
    assert percent({"adding": 30}, 0.6, [limit(), copying], medians) == pytest.approx(100)
    assert percent({"adding": 30}, 2.4, [limit(), copying], medians) == pytest.approx(25)
    assert percent({"adding": 30, "copying": 4}, 4, [limit(), copying], medians) == pytest.approx(25)


def test_percent_the_wrong_way_round_would_be_seen():
    with broken("bench_inverts_percents"), pytest.raises(AssertionError):
        test_a_row_holds_median_spread_and_percent()


def test_a_row_holds_median_spread_and_percent():
    samples = {"adding": [2.0, 2.0, 2.0], "a": [1.0, 1.2, 1.1, 9.0, 1.3]}
    assert cells(contender("a"), [limit()], samples) == {
        "median, ms": 1200.0,
        "min, ms": 1000.0,
        "quartiles, ms": "1.1e+03 to 1.3e+03",
        "limit": "adding",
        "% of the limit": "50",
    }


def test_the_speed_of_a_limit_is_its_median_over_the_run():
    samples = [{"adding": [1.0, 2.0]}, {"adding": [4.0]}]
    assert speeds([limit(work=8e9)], samples).endswith("adding 4 Gadd/s (2 Gadd/s to 8 Gadd/s)")
