"""What a flight recorder waits for: conditions on the metrics of a step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from lamina.errors import RecordingError
from lamina.runs.device_log import DeviceLog

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Spike:
    """Fires where a metric jumps: it exceeds its median by many times its usual deviation.

    Usual are the last `window` values: fires at v > m + deviations * 1.4826 * median(|v_i - m|), m their median. The
    factor makes the median deviation of a normal distribution its standard deviation; spikes that came before
    do not hide the next. Silent until half a window is there; values that are not finite are left out.

    Args:
        metric: Its name.
        deviations: How many standard deviations above the median.
        window: How many values before it are looked at.
    """

    metric: str = "loss"
    deviations: float = 6.0
    window: int = 64

    def watch(self) -> Callable[[Metrics], bool]:
        """Return a function that is to be called with the metrics of each step, in order."""
        past: deque[float] = deque(maxlen=self.window)

        def fires(metrics: Metrics) -> bool:
            value = metrics.get(self.metric, math.nan)
            if not math.isfinite(value):
                return False
            known = len(past) >= max(self.window // 2, 2)
            middle = median(past) if known else value
            usual = 1.4826 * median(abs(one - middle) for one in past) if known else 0.0
            past.append(value)
            return known and value > middle + self.deviations * usual

        return fires

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that it looks at."""
        return (self.metric,)


@dataclass(frozen=True)
class Above:
    """Fires where a metric exceeds a limit, such as the norm of the gradient.

    Args:
        metric: Its name.
        limit: The largest value at which it is silent.
    """

    metric: str
    limit: float

    def watch(self) -> Callable[[Metrics], bool]:
        """Return a function that is to be called with the metrics of each step."""
        return lambda metrics: metrics.get(self.metric, -math.inf) > self.limit

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that it looks at."""
        return (self.metric,)


@dataclass(frozen=True)
class NonFinite:
    """Fires where a metric is NaN or infinite.

    Args:
        metric: Its name; None looks at all that are logged.
    """

    metric: str | None = None

    def watch(self) -> Callable[[Metrics], bool]:
        """Return a function that is to be called with the metrics of each step."""

        def fires(metrics: Metrics) -> bool:
            values = metrics.values() if self.metric is None else [metrics.get(self.metric, 0.0)]
            return not all(map(math.isfinite, values))

        return fires

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that it looks at."""
        return () if self.metric is None else (self.metric,)


Trigger = Spike | Above | NonFinite | Callable[[Metrics], Any]
"""What `when=` takes; a function gets the metrics that were logged for a step."""


class Watch:
    """Asks triggers about each step, once its metrics are known; never waits for a GPU.

    A trigger that fires again and again is told once: it is heard again after `rest` steps of silence.
    """

    def __init__(self, triggers: Iterable[Trigger], rest: int) -> None:
        self._rest = rest
        self._ask: dict[str, Callable[[Metrics], Any]] = {}
        self._unseen: set[str] = set()
        self._fired: dict[str, int] = {}
        self._log = DeviceLog()
        self._values: dict[int, dict[str, float]] = {}
        self._underway: dict[int, int] = {}
        for trigger in triggers:
            name, ask = _named(trigger)
            if name in self._ask:
                raise RecordingError(f"two triggers of the flight recorder are called {name!r}")
            self._ask[name] = ask
            if isinstance(trigger, Spike | Above | NonFinite):
                self._unseen.update(trigger.metrics)

    @property
    def unseen(self) -> list[str]:
        """The metrics that triggers look at and that were never logged."""
        return sorted(self._unseen)

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        """Take the metrics of a step."""
        self._underway[step] = self._underway.get(step, 0) + 1

        def known(names: list[str], values: list[float]) -> None:
            self._values.setdefault(step, {}).update(zip(names, values, strict=True))
            self._underway[step] -= 1

        self._log.put(metrics, known)
        self._unseen.difference_update(metrics)

    def fired(self, before: float = math.inf, *, wait: bool = False) -> list[tuple[str, int]]:
        """Return the triggers that fire newly, with the step, for all steps < `before` whose values are known."""
        self._log.write_known(wait=wait)
        found: list[tuple[str, int]] = []
        for step in sorted(self._values):
            if step >= before or self._underway[step]:
                break
            metrics = self._values.pop(step)
            del self._underway[step]
            for name, ask in self._ask.items():
                if ask(metrics):
                    if step - self._fired.get(name, -math.inf) > self._rest:
                        found.append((name, step))
                    self._fired[name] = step
        return found


def _named(trigger: Trigger) -> tuple[str, Callable[[Metrics], Any]]:
    if isinstance(trigger, Spike | Above | NonFinite):
        kind = {"Spike": "spike", "Above": "above", "NonFinite": "non_finite"}[type(trigger).__name__]
        return "/".join((kind, *trigger.metrics)), trigger.watch()
    if callable(trigger):
        return getattr(trigger, "__name__", type(trigger).__name__).strip("<>"), trigger
    raise RecordingError(
        f"{trigger!r} is no trigger", hint="give lamina.Spike, lamina.Above, lamina.NonFinite or a function of metrics"
    )
