from __future__ import annotations

from time import sleep

import pytest
import torch

from bench import clock
from tests.faults import broken


def test_a_short_call_is_repeated_and_the_first_one_does_not_count(monkeypatch):
    monkeypatch.setattr(clock, "REPETITION", 0.02)
    lengths = []

    def call() -> None:
        lengths.append(0.004 if lengths else 0.3)
        sleep(lengths[-1])

    once = clock.timed(call, "cpu")
    assert 0.004 <= once() < 0.1
    # One to warm up, then until 20 ms are over.
    assert 1 < len(lengths) <= 1 + 5
    before = len(lengths)
    once()
    assert 1 <= len(lengths) - before <= 5


def test_a_long_call_is_made_once_a_repetition(monkeypatch):
    monkeypatch.setattr(clock, "REPETITION", 0.001)
    calls = []
    once = clock.timed(lambda: (calls.append(0), sleep(0.002)), "cpu")
    once()
    assert len(calls) == 2
    once()
    assert len(calls) == 3


class FakeGpu:
    """Stands where torch's CUDA stands: notes what is asked of it; the device takes 1, 2, 4, ... ms for a call."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.flushed = 0
        self.milliseconds = 0.0
        self.calls = 0
        gpu = self

        class Cache:
            def __init__(self, size: int, **options: object) -> None:
                gpu.flushed = size

            def zero_(self) -> None:
                gpu.log.append("flush")

        class Event:
            def __init__(self, *, enable_timing: bool) -> None:
                self.at: float | None = None

            def record(self) -> None:
                self.at = gpu.milliseconds
                gpu.log.append("record")

            def elapsed_time(self, end: Event) -> float:
                assert self.at is not None
                assert end.at is not None
                assert gpu.log[-1] == "synchronize"
                return end.at - self.at

        patch.setattr(torch, "empty", Cache)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "synchronize", lambda: self.log.append("synchronize"))

    def call(self) -> None:
        self.log.append("call")
        self.milliseconds += 2.0**self.calls
        self.calls += 1


def test_on_a_gpu_each_call_stands_between_events_behind_a_flush(monkeypatch):
    monkeypatch.setattr(clock, "REPETITION", 0.006)
    gpu = FakeGpu(monkeypatch)
    seconds = clock.timed(gpu.call, "cuda:0")()
    turn = ["flush", "record", "call", "record"]
    # The first call that counts takes 2 ms: two more, of 4 and 8 ms, fill the repetition.
    assert gpu.log == ["call", *turn, "synchronize", *turn * 2, "synchronize"]
    assert gpu.flushed >= 2**27
    assert seconds == pytest.approx(0.004)


def test_timing_from_a_warm_cache_would_be_seen(monkeypatch):
    with broken("bench_leaves_the_cache_warm"), pytest.raises(AssertionError):
        test_on_a_gpu_each_call_stands_between_events_behind_a_flush(monkeypatch)


@pytest.mark.gpu
def test_a_product_on_a_gpu_takes_time():
    a = torch.randn(2048, 2048, device="cuda")
    assert 1e-6 < clock.timed(lambda: a @ a, "cuda")() < 0.1
