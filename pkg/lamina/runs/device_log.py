"""Metric values that may still be on their way from a GPU.

A value on the CPU is known at once. One on a GPU is copied into pinned memory behind the work that computes it,
with an event after it; it is written when the event has passed, or when somebody asks for everything. The order
of logging is kept, so a value waits for those before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import SchemaError
from lamina.runs.buffers import is_tensor

if TYPE_CHECKING:
    import torch

Write = Callable[[list[str], list[Any]], None]


class DeviceLog:
    """A queue of metric values; `write` is called for those that are known, in order. Several threads may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[list[str], list[Any], list[torch.cuda.Event], Write]] = deque()

    def put(self, values: Mapping[str, Any], write: Write, *, length: int | None = None) -> None:
        """Takes numbers and 0-d tensors, or vectors of a `length`, which `write` gets as lists; never waits for a GPU.

        Raises:
            SchemaError: A value is no single number, or no vector of that length.
        """
        if not isinstance(values, Mapping):
            raise SchemaError(f"the metrics are a {type(values).__name__}", hint='give each by its name: {"loss": 0.7}')
        events: list[torch.cuda.Event] = []
        if length is None:
            known = [_start(name, value, events) for name, value in values.items()]
        else:
            known = [_start_vector(name, value, length, events) for name, value in values.items()]
        with self._lock:
            self._waiting.append((list(values), known, events, write))
            self._write_known(wait=False)

    def write_known(self, *, wait: bool = False) -> None:
        """Writes what has arrived; with `wait`, everything."""
        with self._lock:
            self._write_known(wait=wait)

    def _write_known(self, *, wait: bool) -> None:
        while self._waiting:
            names, values, events, write = self._waiting[0]
            if not wait and not all(event.query() for event in events):
                return
            for event in events:
                event.synchronize()
            self._waiting.popleft()
            write(names, [value.tolist() if getattr(value, "ndim", 0) else float(value) for value in values])


def _start(name: str, value: Any, events: list[torch.cuda.Event]) -> Any:
    if not isinstance(name, str):
        raise SchemaError(f"the metric {name!r} is a {type(name).__name__}", hint="the names of metrics are texts")
    if is_tensor(value):
        if value.numel() != 1:
            raise SchemaError(f"metric {name!r} has {value.numel()} values", hint="reduce it, or append() it as a site")
        if value.is_complex():
            raise SchemaError(
                f"metric {name!r} is complex", hint="log its real and imaginary parts, or its absolute value"
            )
        return _copy(value.detach().reshape(()), events)
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1):
        value = value.item()
    if isinstance(value, bool | int | float):
        try:
            return float(value)
        except OverflowError:
            raise SchemaError(f"metric {name!r} is an integer beyond what a float holds") from None
    raise SchemaError(f"metric {name!r} is a {type(value).__name__}", hint="give a number or a 0-d tensor")


def _start_vector(name: str, value: Any, length: int, events: list[torch.cuda.Event]) -> Any:
    if is_tensor(value) and value.shape == (length,) and not value.is_complex():
        return _copy(value.detach(), events)
    if isinstance(value, (np.ndarray, list, tuple)):
        known = np.asarray(value, np.float64)
        if known.shape == (length,):
            return known.copy()
    raise SchemaError(
        f"metric {name!r} is no vector of {length} real numbers", hint="with several sites it has one for each of them"
    )


def _copy(tensor: torch.Tensor, events: list[torch.cuda.Event]) -> Any:
    import torch

    if tensor.device.type != "cuda":
        # elsewhere the value is read now: on the CPU it costs nothing, and is not changed by what follows
        return tensor.to("cpu", torch.float64, copy=True) if tensor.ndim else tensor.item()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(tensor.device))
    events.append(event)
    return pinned
