"""The recorder: hooks a model on a schedule and writes what flows to a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from lamina.errors import RecordingError
from lamina.recording.guarded import GuardedWriter, OnFailure
from lamina.recording.ranks import own_rank
from lamina.recording.stepping import Stepping

if TYPE_CHECKING:
    from lamina.runs import Run


class Recorder:
    """What `lamina.record` returns: enter it around the training loop, and `step` around each step."""

    def __init__(self, run: Run, steps: Stepping, *, on_failure: OnFailure) -> None:
        self._run = run
        self._steps = steps
        self._on_failure: OnFailure = on_failure
        self._writer: GuardedWriter | None = None
        self._rows: Mapping[str, int] = {}
        self._entered = False
        self._called = 0

    def __repr__(self) -> str:
        state = "open" if self._writer is not None else "closed" if self._entered else "not entered"
        at = "" if self._steps.last is None else f", step {self._steps.last}"
        return f"Recorder({self._run!r}, {len(self._steps.names)} sites recorded, {state}{at})"

    def __enter__(self) -> Recorder:
        """Open a writer and attach the hooks."""
        if self._entered:
            raise RecordingError("a recorder can be entered once", hint="call lamina.record again")
        self._entered = True
        self._writer = GuardedWriter(self._run.writer(rank=own_rank()), self._on_failure)
        self._rows = self._writer.rows
        try:
            self._steps.attach(self._writer)
        except BaseException as error:
            self._steps.detach()
            self._close(self._writer, error)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Take what is due for the final state, take the hooks away, close the writer."""
        assert self._writer is not None
        try:
            if error is None:
                self._all_entered()
                self._steps.finish()
            else:
                self._steps.crash(error)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._steps.detach()
            self._close(self._writer, error)
            self._writer = None

    @property
    def sites(self) -> list[str]:
        """The names of the sites that are recorded."""
        return list(self._steps.names)

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
        return self._steps.own and self._steps.open

    def step(
        self, step: int, example: Any = None, mask: Any = None, batch: Any = None, **columns: Any
    ) -> AbstractContextManager[None]:
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

        Returns:
            What `with` enters and leaves.

        Raises:
            RecordingError: On entry or on exit: if steps are nested or do not grow, if the run holds such steps of
                these sites already, if a column is reserved or does not fit, or if nothing was captured in the first
                step that is due.

        Example:
            >>> import lamina, tempfile, torch
            >>> model, run = torch.nn.Linear(4, 2), lamina.Run.create(tempfile.mkdtemp() + "/run")
            >>> with lamina.record(model, run, sites="output") as recorder:
            ...     with recorder.step(0, example=[7, 8, 9], epoch=0):
            ...         loss = model(torch.ones(3, 4)).mean()
            >>> run.activations().select("step", "example", "epoch").collect().rows()
            [(0, 7, 0), (0, 8, 0), (0, 9, 0)]
        """
        self._all_entered()
        self._called += 1
        return self._steps.at(step, {"example": example, "mask": mask, **columns}, batch)

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
        self._inside(f"put({name!r})")
        self._steps.put(name, value)

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
        self._inside("take_gradients()")
        self._steps.take_gradients()

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
        self._steps.log(metrics, step)

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
        self._inside("noise_scale()")
        self._steps.halve(loss, batch)

    def _all_entered(self) -> None:
        """Raise RecordingError if `step` was called and what it returned was not entered: nothing is recorded so."""
        if self._called > self._steps.entered:
            raise RecordingError("step() was called and not entered", hint="write `with recorder.step(step):`")

    def _inside(self, call: str) -> None:
        if not self._steps.open:
            raise RecordingError(f"{call} outside of a step", hint="call it inside `with recorder.step(...)`")

    def _close(self, writer: GuardedWriter, error: BaseException | None) -> None:
        try:
            writer.close(None if error is None else repr(error))
            self._run.refresh()
        except Exception as failure:
            if error is None:
                raise
            # What went wrong first is what the user has to hear of.
            error.add_note(f"The run's writer could not be closed either: {failure!r}")
