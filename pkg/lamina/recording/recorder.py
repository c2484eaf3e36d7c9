"""The recorder: hooks a model on a schedule and writes what flows to a run."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import RecordingError
from lamina.recording.account import Account
from lamina.recording.appends import appends
from lamina.recording.numbering import Numbering
from lamina.recording.passes import Data, record_pass
from lamina.recording.plan import Plan
from lamina.recording.schedules import Schedule
from lamina.recording.sites import ResolvedSite
from lamina.recording.taps import Tap, Taps
from lamina.runs import LaminaWarning

if TYPE_CHECKING:
    from torch import nn

    from lamina.runs import Run, Writer

_OWN_COLUMNS = frozenset({"row", "source", "call", "micro", "rank"})


class Recorder:
    """What `lamina.record` returns: enter it around the training loop, and `step` around each step."""

    def __init__(
        self,
        model: nn.Module,
        run: Run,
        *,
        sites: list[ResolvedSite],
        every: Schedule,
        checkpoint_every: Schedule | None,
        probes: dict[str, Data],
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self._model = model
        self._run = run
        self._checkpoint_every = checkpoint_every
        self._probes = probes
        self._optimizer = optimizer
        self._taps = Taps(model, sites)
        self._names = dict.fromkeys(site.name for site in sites)
        self._account = Account()
        self._writer: Writer | None = None
        self._entered = False
        self._numbering: Numbering | None = None
        self._last: int | None = None
        self._open = False
        self._completed = False
        self._due = False
        self._plan = Plan(every, self._taps)

    def __enter__(self) -> Recorder:
        """Open a writer and attach the hooks."""
        if self._entered:
            raise RecordingError("a recorder can be entered once", hint="call lamina.record again")
        self._entered = True
        self._writer = self._run.writer()
        try:
            self._taps.__enter__()
        except BaseException as error:
            self._close(self._writer, error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Take what is due for the final state, take the hooks away, close the writer."""
        assert self._writer is not None
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._taps.__exit__()
            self._close(self._writer, error)
            self._writer = None

    @property
    def sites(self) -> list[str]:
        """The names of the sites that are recorded."""
        return list(self._names)

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
        return self._due

    @contextmanager
    def step(self, step: int, example: Any = None, mask: Any = None, **columns: Any) -> Iterator[None]:
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
            columns: Further columns, by name.

        Yields:
            Nothing.

        Raises:
            RecordingError: If steps are nested or do not grow, if a column is reserved or does not fit, or if
                nothing was captured in the first step that is due.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites="output") as recorder:
            ...     with recorder.step(0, example=[7, 8, 9], epoch=0):
            ...         loss = model(torch.ones(3, 4)).mean()
            >>> run.activations().select("step", "example", "epoch").collect().rows()
            [(0, 7, 0), (0, 8, 0), (0, 9, 0)]
        """
        due = self._begin(step, columns)
        try:
            if due or self._due:
                self._taps.arm(due)
            yield
        except BaseException:
            self._taps.collector.drain()
            raise
        else:
            self._taps.disarm()
            if due or self._due:
                given = {"example": example, "mask": mask, **columns}
                self._write(due, {name: column for name, column in given.items() if column is not None})
            self._completed = True
        finally:
            self._taps.disarm()
            self._open = self._due = False

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
        if not self._open:
            raise RecordingError(f"put({name!r}) outside of a step", hint="call it inside `with recorder.step(...)`")
        if not self._due:
            return
        if name in self._names:
            raise RecordingError(f"put({name!r}): a module's site has this name", hint="choose another")
        self._taps.collector.take(name, torch.as_tensor(value), given=True)

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
        step = self._last if step is None else step
        if self._writer is None:
            raise RecordingError("log() outside of the recorder", hint="use it inside `with lamina.record(...)`")
        if step is None:
            raise RecordingError("log() before the first step", hint="give step=")
        self._writer.log(metrics, step=step)

    def _begin(self, step: int, columns: dict[str, Any]) -> list[Tap]:
        if self._writer is None:
            raise RecordingError("step() outside of the recorder", hint="use it inside `with lamina.record(...)`")
        try:
            step = operator.index(step)
        except TypeError:
            raise RecordingError(f"the step {step!r} is no whole number") from None
        if step < 0:
            raise RecordingError(f"the step {step} is negative", hint="step s is the state after s updates")
        if self._open:
            raise RecordingError(f"step {step} begins inside step {self._last}", hint="steps cannot be nested")
        if self._last is not None and step <= self._last:
            raise RecordingError(
                f"step {step} comes after step {self._last}",
                hint="steps grow within a recorder: count updates over all epochs, or begin a new run",
            )
        if not _OWN_COLUMNS.isdisjoint(columns):
            names = ", ".join(sorted(_OWN_COLUMNS.intersection(columns)))
            raise RecordingError(f"the column {names} is filled by Lamina", hint="choose another name")
        self._last = step
        self._completed = False
        own, due = self._plan.due(step)
        if self._checkpoint_every is not None and self._checkpoint_every.due(step):
            self._save(step)
        self._probe(step, due)
        self._open, self._due = True, own
        return due

    def _write(self, due: list[Tap], columns: dict[str, Any]) -> None:
        assert self._writer is not None
        assert self._last is not None
        captured = self._taps.collector.drain()
        self._account.add("train", [tap.site.name for tap in due], [one.site for one in captured if not one.given])
        numbering = None if "example" in columns or not captured else self._number()
        # All of them before the first is written: columns that do not fit leave no part of the step behind.
        for sites, own in list(appends(captured, columns, numbering)):
            self._writer.append(sites, step=self._last, source="train", **own)

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

    def _probe(self, step: int, due: list[Tap]) -> None:
        assert self._writer is not None
        for source, data in self._probes.items() if due else ():
            record_pass(
                self._model,
                data,
                taps=self._taps,
                due=due,
                account=self._account,
                writer=self._writer,
                step=step,
                source=source,
            )

    def _save(self, step: int) -> None:
        assert self._writer is not None
        parts = {"model": getattr(self._model, "_orig_mod", self._model).state_dict()}
        if self._optimizer is not None:
            parts["optimizer"] = self._optimizer.state_dict()
        self._writer.save(parts, step=step)

    def _finish(self) -> None:
        if self._completed and self._last is not None:
            final = self._last + 1
            if self._checkpoint_every is not None:
                self._save(final)
            self._probe(final, list(self._taps))
        self._account.close()

    def _close(self, writer: Writer, error: BaseException | None) -> None:
        try:
            writer.close(error=None if error is None else repr(error))
            self._run.refresh()
        except Exception as failure:
            if error is None:
                raise
            # What went wrong first is what the user has to hear of.
            error.add_note(f"The run's writer could not be closed either: {failure!r}")
