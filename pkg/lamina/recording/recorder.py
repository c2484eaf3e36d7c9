"""The recorder: hooks a model on a schedule and writes what flows to a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import RecordingError
from lamina.recording.account import Account
from lamina.recording.appends import appends
from lamina.recording.flight import Flight, FlightRing, Stateful
from lamina.recording.guarded import GuardedWriter, OnFailure
from lamina.recording.numbering import Numbering
from lamina.recording.numbers import Meters, Numbers
from lamina.recording.plan import Plan
from lamina.recording.probes import Probes
from lamina.recording.progression import Progression
from lamina.recording.ranks import own_rank
from lamina.recording.resolve import Resolved
from lamina.recording.resuming import refuse_again
from lamina.recording.saving import save
from lamina.recording.schedules import Schedule
from lamina.recording.watching import AnyTap, Taps
from lamina.recording.wrappers import unwrapped
from lamina.runs import LaminaWarning

if TYPE_CHECKING:
    from torch import nn

    from lamina.runs import Run


class Recorder:
    """What `lamina.record` returns: enter it around the training loop, and `step` around each step."""

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
        flight: Flight | None,
        numbers: Numbers | None,
        on_failure: OnFailure,
    ) -> None:
        self._model = model
        self._run = run
        self._checkpoint_every = checkpoint_every
        self._probes = probes
        self._stateful: dict[str, Stateful] = {"model": unwrapped(model)}
        if optimizer is not None:
            self._stateful["optimizer"] = optimizer
        self._flight = flight
        self._ring: FlightRing | None = None
        self._on_failure: OnFailure = on_failure
        self._taps = Taps(model, sites, optimizer=optimizer, attention=attention)
        self._names = dict.fromkeys(tap.site.name for tap in self._taps)
        self._account = Account()
        self._writer: GuardedWriter | None = None
        self._rows: Mapping[str, int] = {}
        self._entered = False
        self._numbering: Numbering | None = None
        self._steps = Progression()
        self._own = False
        self._due: list[AnyTap] = []
        self._plan = Plan(every, self._taps)
        self._all = list(self._taps)
        self._meters = Meters(model, numbers, optimizer, log=self._log)

    def __enter__(self) -> Recorder:
        """Open a writer and attach the hooks."""
        if self._entered:
            raise RecordingError("a recorder can be entered once", hint="call lamina.record again")
        self._entered = True
        self._writer = GuardedWriter(self._run.writer(rank=own_rank()), self._on_failure)
        self._rows = self._writer.rows
        try:
            self._taps.__enter__()
            self._meters.attach()
        except BaseException as error:
            self._taps.__exit__()
            self._meters.detach()
            self._close(self._writer, error)
            raise
        if self._flight is not None:
            self._ring = FlightRing(self._flight, self._writer, self._stateful)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Take what is due for the final state, take the hooks away, close the writer."""
        assert self._writer is not None
        try:
            if error is None:
                self._finish(self._writer)
            elif self._ring is not None:
                self._ring.crash(error)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._taps.__exit__()
            self._meters.detach()
            self._close(self._writer, error)
            self._writer = self._ring = None

    @property
    def sites(self) -> list[str]:
        """The names of the sites that are recorded."""
        return list(self._names)

    @property
    def rows(self) -> dict[str, int]:
        """How many rows of each site were handed to the store so far: of steps, probes and what `put` was given.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites="output") as recorder:
            ...     for step in range(3):
            ...         with recorder.step(step, example=range(8), mask=torch.arange(8) < 5):
            ...             loss = model(torch.zeros(8, 4)).sum()
            >>> recorder.rows
            {'output': 15}
        """
        return dict(self._rows)

    @property
    def due(self) -> bool:
        """True inside a step that the recorder's own schedule holds for due: `put` records then.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites=[], every=2) as recorder:
            ...     for step in range(4):
            ...         with recorder.step(step):
            ...             print(step, recorder.due)
            0 True
            1 False
            2 True
            3 False
        """
        return self._own and self._steps.open

    @contextmanager
    def step(
        self, step: int, example: Any = None, mask: Any = None, batch: Any = None, **columns: Any
    ) -> Iterator[None]:
        """Mark one training step: one optimizer update, with all the forward passes that belong to it.

        Columns describe the rows: one value for all, or one entry for each batch item, or [batch, positions] for
        tensors of three dimensions. If the model is called several times in the step (micro-batches), a column as
        long as all calls together is divided among them in order, and one as long as each call holds for
        every call. If a module is called several times, its rows get a column `call`: 0, 1, ….

        Args:
            step: The number of optimizer updates so far. It grows from step to step.
            example: What the batch items are: integers or strings, the same whenever the item comes again. Without
                it they are numbered through the recording, and rows of different steps cannot be paired.
            mask: False for rows that are not to be stored, [batch] or [batch, positions].
            batch: What the step trains on, for a `Flight` to keep; without one it is not looked at.
            columns: Further columns, by name.

        Yields:
            Nothing.

        Raises:
            RecordingError: If steps are nested or do not grow, if the run holds such steps of these sites already,
                if a column is reserved or does not fit, or if nothing was captured in the first step that is due.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites="output") as recorder:
            ...     with recorder.step(0, example=[7, 8, 9], epoch=0):
            ...         loss = model(torch.ones(3, 4)).mean()
            >>> run.activations().select("step", "example", "epoch").collect().rows()
            [(0, 7, 0), (0, 8, 0), (0, 9, 0)]
        """
        writer = self._begin(step, columns)
        try:
            if self._ring is not None:
                self._ring.batch(batch)
                self._taps.arm(self._all)
            elif self._due or self._own:
                self._taps.arm(self._due)
            self._meters.arm()
            yield
        except BaseException:
            self._taps.collector.drain()
            self._meters.drop()
            raise
        else:
            if self._due or self._own or self._ring is not None:
                given = {"example": example, "mask": mask, **columns}
                self._write(writer, {name: column for name, column in given.items() if column is not None})
            self._meters.end(mask)
            self._steps.completed = True
        finally:
            self._taps.disarm()
            self._meters.disarm()
            self._steps.open = False

    def put(self, name: str, value: Any) -> None:
        """Record a tensor of one's own as a site, if the step is due by the recorder's own schedule.

        Args:
            name: The name of the site.
            value: A tensor, array or list, [batch] or [batch, …]; copied at once.

        Raises:
            RecordingError: Outside of a step, or if `name` is that of a module's site.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites="output") as recorder:
            ...     with recorder.step(0, example=[7, 8, 9]):
            ...         recorder.put("size", model(torch.zeros(3, 4)).norm(dim=1))
            >>> run.activations().collect().columns
            ['row', 'step', 'example', 'source', 'output', 'size']
        """
        if not self._steps.open:
            raise RecordingError(f"put({name!r}) outside of a step", hint="call it inside `with recorder.step(...)`")
        if not self._own and self._ring is None:
            return
        if name in self._names:
            raise RecordingError(f"put({name!r}): a module's site has this name", hint="choose another")
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecordingError(f"put({name!r}): {type(value).__name__} is no tensor, array or list") from error
        self._taps.collector.take(name, tensor, given=True)

    def take_gradients(self) -> None:
        """Take the gradients of the parameters now, in a step, and not when the optimizer steps.

        Called between the backward pass and clipping it records them as they are; without it they are what the
        optimizer gets. Does nothing for sites that are not due.

        Raises:
            RecordingError: Outside of a step.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 1), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with lamina.record(model, run, sites="weight.grad", optimizer=optimizer) as recorder:
            ...     with recorder.step(0):
            ...         model(torch.ones(3, 4)).sum().backward()
            ...         recorder.take_gradients()
            ...         norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            ...         optimizer.step()
            >>> run.rows("weight.grad").gather([0]).tolist()
            [[3.0, 3.0, 3.0, 3.0]]
        """
        if not self._steps.open:
            raise RecordingError("take_gradients() outside of a step", hint="call it inside `with recorder.step(...)`")
        self._taps.take_gradients()

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record single numbers, at every step at which it is called. Never waits for a GPU.

        Args:
            metrics: Numbers or tensors with one element, by name.
            step: Their step; None means the current or else the last one.

        Raises:
            RecordingError: If there was no step yet and none is given, or outside of the recorder.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites=[]) as recorder:
            ...     with recorder.step(0):
            ...         loss = model(torch.ones(3, 4)).square().mean()
            ...     recorder.log({"train/loss": loss})
            >>> run.metrics().select("step", "name").collect().rows()
            [(0, 'train/loss')]
        """
        step = self._steps.last if step is None else step
        if self._writer is None:
            raise RecordingError("log() outside of the recorder", hint="use it inside `with lamina.record(...)`")
        if step is None:
            raise RecordingError("log() before the first step", hint="give step=")
        self._log(metrics, step)

    def noise_scale(self, loss: Callable[..., torch.Tensor], *batch: Any) -> None:
        """Take the gradient noise scale from two halves of a batch, if the step is due by `lamina.Numbers`.

        For trainings without micro-batches or ranks. Runs `loss` forward and backward on each half: together as much as
        a forward and backward pass over the batch, and the memory of two gradients. Gradients, buffers, random states
        and what is recorded stay as without it. Logs `noise_scale/gradient_square` and `noise_scale/covariance_trace`;
        what they are and how to use them tells `lamina.recording.two_batch_sizes`.

        Args:
            loss: Returns the mean loss over its items.
            batch: What it takes; tensors are halved along their first dimension.

        Raises:
            RecordingError: Outside of a step, without `numbers=`, or if the batch cannot be halved.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> numbers = lamina.Numbers(every=100, norms=[])
            >>> with lamina.record(model, run, sites=[], numbers=numbers) as recorder:
            ...     with recorder.step(0):
            ...         recorder.noise_scale(lambda x: model(x).square().mean(), torch.randn(8, 4))
            >>> run.metrics().select("name").collect()["name"].to_list()
            ['noise_scale/gradient_square', 'noise_scale/covariance_trace']
        """
        if not self._steps.open:
            raise RecordingError("noise_scale() outside of a step", hint="call it inside `with recorder.step(...)`")
        with self._taps.paused():
            self._meters.halve(loss, batch)

    def _log(self, metrics: Mapping[str, Any], step: int, site: Sequence[str] | None = None) -> None:
        assert self._writer is not None
        self._writer.log(metrics, step=step, site=site)
        if self._ring is not None and site is None:
            self._ring.log(metrics, step)

    def _begin(self, step: int, columns: dict[str, Any]) -> GuardedWriter:
        if self._writer is None:
            raise RecordingError("step() outside of the recorder", hint="use it inside `with lamina.record(...)`")
        first = self._steps.last is None
        new = self._steps.begin(step, columns)
        if new:
            self._account.begin_step()
            # Until checkpoint and probes are done there is no step to be recorded: they may raise.
            self._steps.open = False
            assert self._steps.last is not None
            if first:
                sources = ["train", *self._probes.names]
                refuse_again(self._run, self._names, sources, self._steps.last, own_rank())
            self._own, self._due = self._plan.due(self._steps.last)
            self._meters.begin(self._steps.last, own=self._own)
            if self._ring is not None:
                self._ring.begin(self._steps.last)
            if self._checkpoint_every is not None and self._checkpoint_every.due(self._steps.last):
                self._save(self._writer, self._steps.last)
            self._probe(self._writer, self._steps.last, self._due)
            self._steps.open = True
        return self._writer

    def _write(self, writer: GuardedWriter, columns: dict[str, Any]) -> None:
        expected = [tap.site.name for tap in self._due if tap.expected]
        awaited = self._taps.awaited
        captured = self._taps.drain()
        now = {tap.site.name for tap in self._due}
        if self._own:
            now.update(one.site for one in captured if one.given)
        self._account.add("train", expected, [one.site for one in captured if not one.given], awaited=awaited)
        unnamed = "example" not in columns and any(one.form != "units" for one in captured)
        numbering = self._number() if unnamed else None
        if self._steps.micro:
            columns["micro"] = self._steps.micro
        # All of them before the first is written: columns that do not fit leave no part of the step behind.
        for sites, own in list(appends(captured, columns, numbering)):
            if due := {name: value for name, value in sites.items() if name in now}:
                writer.append(due, step=self._steps.last, source="train", **own)
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

    def _probe(self, writer: GuardedWriter, step: int, due: list[AnyTap] | None) -> None:
        self._probes.run(self._model, step, due, taps=self._taps, account=self._account, writer=writer)

    def _save(self, writer: GuardedWriter, step: int) -> None:
        save(writer, self._model, self._stateful, step)

    def _finish(self, writer: GuardedWriter) -> None:
        if self._steps.completed and self._steps.last is not None:
            final = self._steps.last + 1
            if self._checkpoint_every is not None:
                self._save(writer, final)
            self._probe(writer, final, None)
        self._meters.finish()
        self._account.close()
        if self._ring is not None:
            self._ring.close()

    def _close(self, writer: GuardedWriter, error: BaseException | None) -> None:
        try:
            writer.close(None if error is None else repr(error))
            self._run.refresh()
        except Exception as failure:
            if error is None:
                raise
            # What went wrong first is what the user has to hear of.
            error.add_note(f"The run's writer could not be closed either: {failure!r}")
