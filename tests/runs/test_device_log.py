"""Metrics from a GPU are written when they have arrived, in order, and nobody waits for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lamina.errors import SchemaError
from lamina.runs import device_log
from lamina.runs.device_log import DeviceLog


class Event:
    """Stands for a CUDA event: passes when told to, and remembers whether somebody waited for it."""

    def __init__(self) -> None:
        self.passed = self.waited = False

    def query(self) -> bool:
        return self.passed

    def synchronize(self) -> None:
        self.waited = self.waited or not self.passed
        self.passed = True


class OnDevice(float):
    """Stands for a value that a GPU still computes."""

    def __new__(cls, value: float) -> OnDevice:
        number = super().__new__(cls, value)
        number.event = Event()
        return number

    event: Event


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> DeviceLog:
    start = device_log._start

    def with_devices(name: str, value: Any, events: list[Any]) -> Any:
        if isinstance(value, OnDevice):
            events.append(value.event)
            return value
        return start(name, value, events)

    monkeypatch.setattr(device_log, "_start", with_devices)
    return DeviceLog()


def test_a_value_is_written_when_it_arrives_and_those_behind_it_wait(log: DeviceLog) -> None:
    written: list[tuple[list[str], list[float]]] = []
    slow, fast = OnDevice(1.0), OnDevice(2.0)
    log.put({"a": 0.5}, lambda *row: written.append(row))
    log.put({"slow": slow, "b": 7}, lambda *row: written.append(row))
    fast.event.passed = True
    log.put({"fast": fast}, lambda *row: written.append(row))
    assert written == [(["a"], [0.5])]
    slow.event.passed = True
    log.write_known()
    assert written[1:] == [(["slow", "b"], [1.0, 7.0]), (["fast"], [2.0])]
    assert not slow.event.waited
    assert not fast.event.waited


def test_whoever_asks_for_everything_waits(log: DeviceLog) -> None:
    written: list[Any] = []
    value = OnDevice(3.0)
    log.put({"x": value}, lambda *row: written.append(row))
    log.write_known(wait=True)
    assert written == [(["x"], [3.0])]
    assert value.event.waited


@pytest.mark.parametrize("value", ["0.5", None, [1.0], {"a": 1}])
def test_what_is_no_number_is_named(log: DeviceLog, value: Any) -> None:
    with pytest.raises(SchemaError, match="'loss'"):
        log.put({"loss": value}, lambda *row: None)


def test_vectors_wait_like_numbers(log: DeviceLog, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Any] = []
    slow = OnDevice(1.0)

    def copy(tensor: torch.Tensor, events: list[Any]) -> torch.Tensor:
        events.append(slow.event)
        return tensor.clone()

    monkeypatch.setattr(device_log, "_copy", copy)
    log.put({"norms": torch.tensor([1.0, 2.0])}, lambda *row: written.append(row), length=2)
    assert written == []
    slow.event.passed = True
    log.write_known()
    assert written == [(["norms"], [[1.0, 2.0]])]
    assert not slow.event.waited
