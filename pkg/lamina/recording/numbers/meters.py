"""What one recorder logs about its training, step by step."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.closures import with_gradients
from lamina.recording.numbers.backward import Backwards
from lamina.recording.numbers.found import Found
from lamina.recording.numbers.log_partition import LogPartitions
from lamina.recording.numbers.noise_scale import GRADIENT_SQUARE, MicroBatches, as_metrics, half_batches
from lamina.recording.numbers.norms import Norms
from lamina.recording.numbers.options import Numbers
from lamina.recording.schedules import schedule_of

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle


class Meters:
    """Takes the numbers of the steps that are due.

    They are logged at the end of the `recorder.step` in which the optimizer stepped, or when the next step begins.
    Hooks on the optimizer and on the modules that give logits stay from `attach` to `detach`, idle in steps that are
    not due; those that see gradients come and go.
    """

    def __init__(
        self,
        model: nn.Module,
        numbers: Numbers | None,
        optimizer: torch.optim.Optimizer | None,
        *,
        log: Callable[[dict[str, Any], int, list[str] | None], None],
    ) -> None:
        """Make it.

        Args:
            model: The model.
            numbers: What is asked for, if anything.
            optimizer: The model's.
            log: Gets metrics, their step, and the sites if they are vectors.
        """
        self._log = log
        self._asked = numbers is not None
        numbers = numbers or Numbers(every=(), norms=())
        self._model = model
        self._optimizer = optimizer
        self._schedule = None if numbers.every is None else schedule_of(numbers.every)
        self._norms = Norms(model, numbers.norms, numbers.by, optimizer)
        self._partitions = LogPartitions(model, numbers.log_partition)
        self._passes = None if numbers.noise_scale is None else MicroBatches(model, numbers.noise_scale)
        self._backwards = Backwards(
            model.parameters(),
            arrived=None if self._passes is None else self._passes.arrived,
            ended=self._after_backward if self._norms.of_backward or self._passes is not None else None,
        )
        self._handles: list[RemovableHandle] = []
        self._expected = dict.fromkeys([*self._norms.names, *self._partitions.names])
        if self._passes is not None:
            self._expected[GRADIENT_SQUARE] = None
        self._ever: set[str] = set()
        self._step: int | None = None
        self._due = self._armed = self._stepped = self._warned = False
        self._halved: list[Found] = []
        self._logged: set[str] = set()

    def attach(self) -> None:
        """Watch the optimizer and the logits."""
        for tap in self._partitions.taps:
            tap.attach()
        if self._optimizer is not None and self._asked:
            self._handles = [
                self._optimizer.register_step_pre_hook(
                    lambda _, args, kwargs: with_gradients(self._before_update, args, kwargs)
                ),
                self._optimizer.register_step_post_hook(lambda *_: self._after_update()),
            ]

    def detach(self) -> None:
        """Watch them no more."""
        self.disarm()
        for tap in self._partitions.taps:
            tap.detach()
        while self._handles:
            self._handles.pop().remove()

    def begin(self, step: int, *, own: bool) -> None:
        """Begin a new step; `own` says whether the recorder's schedule is due."""
        self._close_step()
        self._due = own if self._schedule is None else self._schedule.due(step)
        self._step, self._stepped = step, False
        if self._due:
            self._norms.begin()

    def arm(self) -> None:
        """Watch the training, if the step is due, until `disarm`."""
        if not self._due:
            return
        self._armed = True
        for tap in self._partitions.taps:
            tap.armed = True
        self._backwards.arm()

    def disarm(self) -> None:
        """Be idle."""
        self._armed = False
        for tap in self._partitions.taps:
            tap.disarm()
        self._backwards.disarm()

    def end(self, mask: Any) -> None:
        """Take what one `recorder.step` saw, and log it if the optimizer stepped in it."""
        if not self._due:
            return
        self._norms.end()
        self._partitions.end(mask)
        if self._stepped:
            self._write()

    def drop(self) -> None:
        """Forget the current step: it raised."""
        self._take()
        self._due = False

    def finish(self) -> None:
        """Log what is left.

        Raises:
            RecordingError: A number was asked for and never found.
        """
        self._close_step()
        missing = [name for name in self._expected if name not in self._ever]
        if missing and self._warned:
            raise RecordingError(f"{', '.join(missing)}: nothing was found in any step", hint=_hint(missing[0]))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See nothing of what a block of code does."""
        self.disarm()
        try:
            yield
        finally:
            self.arm()

    def halve(self, loss: Callable[..., torch.Tensor], batch: Sequence[Any]) -> None:
        """Take the noise scale from two halves of a batch, if the step is due.

        Raises:
            RecordingError: If no numbers were asked for, or the batch cannot be halved.
        """
        if not self._asked:
            raise RecordingError(
                "noise_scale() needs a schedule", hint="lamina.record(…, numbers=lamina.Numbers(every=…))"
            )
        if not self._due:
            return
        with self.paused():
            self._halved.append(as_metrics(half_batches(self._model, loss, batch)))

    def _before_update(self) -> None:
        if self._armed:
            self._norms.before_update()

    def _after_update(self) -> None:
        if self._armed:
            self._stepped = True
            self._norms.after_update()

    def _after_backward(self) -> None:
        if self._norms.of_backward:
            self._norms.after_backward()
        if self._passes is not None:
            self._passes.after_backward()

    def _take(self) -> list[Found]:
        found = [*self._norms.take(), *self._partitions.take_found(), *self._halved]
        if self._passes is not None:
            found += self._passes.take()
        self._halved = []
        return found

    def _write(self) -> None:
        assert self._step is not None
        for one in self._take():
            if one.at:
                self._log(one.at, self._step, one.sites)
            if one.whole:
                self._log(one.whole, self._step, None)
            self._logged.update(one.at, one.whole)

    def _close_step(self) -> None:
        if not self._due:
            return
        self._write()
        missing = [name for name in self._expected if name not in self._logged]
        if missing and not self._warned:
            self._warned = True
            warnings.warn(
                f"{', '.join(missing)}: nothing was found in step {self._step} ({_hint(missing[0])})",
                LaminaWarning,
                stacklevel=2,
            )
        self._ever |= self._logged
        self._logged, self._due = set(), False


_HINTS = {
    "gradient_norm": "the optimizer that record was given has to step inside of recorder.step, or without one "
    "gradients have to stand at its end; a GradScaler skips the steps that overflow",
    "raw_gradient_norm": "the backward pass has to run inside of recorder.step and reach the model's parameters",
    "update_norm": "the optimizer that record was given has to step inside of recorder.step; a GradScaler skips the "
    "steps that overflow",
    "log_partition": "the module was not called, or was compiled and called before recording began",
    GRADIENT_SQUARE: "one backward pass a step and one rank leave nothing to compare: call "
    "recorder.noise_scale(loss, *batch), which halves the batch",
}


def _hint(name: str) -> str:
    return _HINTS.get(name, "the step has to run inside of recorder.step")
