"""Being at a step: what happens when it begins, what is captured in it, and what is written when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import LaminaWarning, RecordingError
from lamina.modules.wrappers import unwrapped
from lamina.recording.account import Account
from lamina.recording.division import Division
from lamina.recording.flight import Flight, Stateful
from lamina.recording.numbering import Numbering
from lamina.recording.numbers import Meters, Numbers
from lamina.recording.plan import Plan
from lamina.recording.probes import Probes
from lamina.recording.progression import Progression
from lamina.recording.ranks import own_rank
from lamina.recording.resolve import Resolved
from lamina.recording.resuming import refuse_again
from lamina.recording.ring import FlightRing
from lamina.recording.saving import save
from lamina.recording.schedules import Schedule
from lamina.recording.watching import AnyTap, Taps

if TYPE_CHECKING:
    from torch import nn

    from lamina.recording.guarded import GuardedWriter
    from lamina.runs import Run


class Stepping:
    """The steps of one recorder, between `attach` and `detach`.

    Attributes:
        names: The sites of modules, parameters and attention, in order.
        own: Whether the current step is due by the recorder's own schedule.
        entered: How many steps and micro-batches were entered, or tried to be.
    """

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        *,
        sites: Resolved,
        attention: Iterable[str],
        every: Schedule,
        checkpoint_every: Schedule | None,
        probes: Probes,
        optimizer: torch.optim.Optimizer | None,
        also: Mapping[str, Stateful],
        flight: Flight | None,
        numbers: Numbers | None,
        replicated: bool,
    ) -> None:
        self._model = model
        self._replicated = replicated
        self._run = run
        self._checkpoint_every = checkpoint_every
        self._probes = probes
        self._stateful: dict[str, Stateful] = {"model": unwrapped(model)}
        if optimizer is not None:
            self._stateful["optimizer"] = optimizer
        self._stateful |= also
        self._flight = flight
        self._ring: FlightRing | None = None
        self._taps = Taps(model, sites, optimizer=optimizer, attention=attention, replicated=replicated)
        self._all = list(self._taps)
        self.names = dict.fromkeys(tap.site.name for tap in self._all)
        self._plan = Plan(every, self._all)
        self._meters = Meters(model, numbers, optimizer, log=self.log)
        self._account = Account()
        self._numbering: Numbering | None = None
        self._division = Division()
        self._progression = Progression()
        self._writer: GuardedWriter | None = None
        self._due: list[AnyTap] = []
        self.own = False
        self.entered = 0

    @property
    def open(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._progression.open

    @property
    def last(self) -> int | None:
        """The step that was begun last, None before the first."""
        return self._progression.last

    def attach(self, writer: GuardedWriter) -> None:
        """Attach the hooks; what they capture goes to `writer`."""
        self._writer = writer
        self._taps.__enter__()
        if self._all:
            self._taps.count_unseen()
        self._meters.attach()
        if self._flight is not None:
            self._ring = FlightRing(self._flight, writer, self._stateful)

    def detach(self) -> None:
        """Take the hooks away."""
        self._taps.__exit__()
        self._meters.detach()
        self._writer = self._ring = None

    @contextmanager
    def at(self, step: int, columns: dict[str, Any], batch: Any) -> Iterator[None]:
        """Be at a step, or at a further micro-batch of the one before; see `Recorder.step`.

        Args:
            step: Its number.
            columns: The rows' columns, `example` and `mask` among them; None is none.
            batch: What a flight recorder keeps.
        """
        self.entered += 1
        self._taps.see()
        writer = self._begin(step, columns)
        try:
            if self._ring is not None:
                self._ring.batch(batch)
                self._taps.arm(self._all)
            elif self._due or self.own:
                self._taps.arm(self._due)
            self._meters.arm()
            yield
        except BaseException:
            self._taps.collector.drain()
            self._meters.drop()
            raise
        else:
            if self._due or self.own or self._ring is not None:
                self._write(writer, {name: column for name, column in columns.items() if column is not None})
            self._meters.end(columns["mask"])
            self._progression.completed = True
        finally:
            self._taps.disarm()
            self._meters.disarm()
            self._progression.open = False

    def put(self, name: str, value: Any) -> None:
        """Take a tensor of the user's, if the step is due by the recorder's own schedule; see `Recorder.put`."""
        if not self.own and self._ring is None:
            return
        if name in self.names:
            raise RecordingError(f"put({name!r}): a module's site has this name", hint="choose another")
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecordingError(f"put({name!r}): {type(value).__name__} is no tensor, array or list") from error
        self._taps.collector.take(name, tensor, given=True)

    def take_gradients(self) -> None:
        """Take the gradients of the parameters that are due now."""
        self._taps.take_gradients()

    def halve(self, loss: Callable[..., torch.Tensor], batch: tuple[Any, ...]) -> None:
        """Take the gradient noise scale from two halves of a batch; see `Recorder.noise_scale`."""
        with self._taps.paused():
            self._meters.halve(loss, batch)

    def log(self, metrics: Mapping[str, Any], step: int, site: Sequence[str] | None = None) -> None:
        """Record numbers; those of no site are what triggers look at."""
        assert self._writer is not None
        self._writer.log(metrics, step=step, site=site)
        if self._ring is not None and site is None:
            self._ring.log(metrics, step)

    def finish(self) -> None:
        """Take what is due for the final state, and say what captured nothing."""
        if self._progression.completed and self.last is not None:
            final = self.last + 1
            if self._checkpoint_every is not None:
                self._save(final)
            self._probe(final, None)
        self._taps.warn_of_unseen()
        self._meters.finish()
        self._account.close()
        if self._ring is not None:
            self._ring.close()

    def crash(self, error: BaseException) -> None:
        """Have the flight recorder write what led to an exception."""
        if self._ring is not None:
            self._ring.crash(error)

    def _begin(self, step: int, columns: dict[str, Any]) -> GuardedWriter:
        if self._writer is None:
            raise RecordingError("step() outside of the recorder", hint="use it inside `with lamina.record(...)`")
        first = self.last is None
        if self._progression.begin(step, columns):
            self._account.begin_step()
            # Until checkpoint and probes are done there is no step to be recorded: they may raise.
            self._progression.open = False
            assert self.last is not None
            if first:
                refuse_again(self._run, self.names, ["train", *self._probes.names], self.last, own_rank())
            self.own, self._due = self._plan.due(self.last)
            self._meters.begin(self.last, own=self.own)
            if self._ring is not None:
                self._ring.begin(self.last)
            if self._checkpoint_every is not None and self._checkpoint_every.due(self.last):
                self._save(self.last)
            self._probe(self.last, self._due)
            self._progression.open = True
        return self._writer

    def _write(self, writer: GuardedWriter, columns: dict[str, Any]) -> None:
        expected = [tap.site.name for tap in self._due if tap.expected]
        awaited = self._taps.awaited
        captured = self._taps.drain()
        now = {tap.site.name for tap in self._due}
        if self.own:
            now.update(one.site for one in captured if one.given)
        self._account.add("train", expected, [one.site for one in captured if not one.given], awaited=awaited)
        unnamed = "example" not in columns and any(one.form != "units" for one in captured)
        numbering = self._number() if unnamed else None
        if self._progression.micro:
            columns["micro"] = self._progression.micro
        # All of them before the first is written: columns that do not fit leave no part of the step behind.
        for sites, own in self._division.of(captured, columns, numbering):
            if due := {name: value for name, value in sites.items() if name in now}:
                writer.append(due, step=self.last, source="train", **own)
            if self._ring is not None and len(due) < len(sites):
                self._ring.rows({name: value for name, value in sites.items() if name not in now}, own)

    def _number(self) -> Numbering:
        if self._numbering is None:
            warnings.warn(
                "no example= was given to recorder.step: batch items are numbered through the run, and rows of "
                "different steps cannot be paired",
                LaminaWarning,
                stacklevel=5,
            )
            self._numbering = Numbering.behind(self._run)
        return self._numbering

    def _probe(self, step: int, due: list[AnyTap] | None) -> None:
        assert self._writer is not None
        self._probes.run(self._model, step, due, taps=self._taps, account=self._account, writer=self._writer)

    def _save(self, step: int) -> None:
        assert self._writer is not None
        save(self._writer, self._model, self._stateful, step, replicated=self._replicated)
