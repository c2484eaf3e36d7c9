"""A recorder that follows a loop which tells of its steps by events, where no `with` fits around them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from lamina.errors import LaminaWarning, RecordingError
from lamina.recording.ranks import own_rank
from lamina.recording.training import record

if TYPE_CHECKING:
    from torch import nn

    from lamina.recording.recorder import Recorder
    from lamina.runs import Run


class Following:
    """Opens, uses and closes a recorder as a loop reports its events.

    Args:
        run: Where to write.
        options: Those of `lamina.record`, `sites` among them.
    """

    def __init__(self, run: Run, options: Mapping[str, Any]) -> None:
        self._run = run
        self._options = options
        self._recorder: Recorder | None = None
        self._step: AbstractContextManager[None] | None = None
        self._failed = False

    @property
    def recorder(self) -> Recorder | None:
        """The recorder between `open` and `close`."""
        return self._recorder

    @property
    def stepping(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._step is not None

    def open(self, model: nn.Module, optimizer: torch.optim.Optimizer | None, *, replicated: bool) -> None:
        """Begin to record a model; what is still open of an attempt before ends as failed.

        Args:
            model: The model, without what the loop wraps around it.
            optimizer: Its optimizer, if it has one alone.
            replicated: Whether the loop keeps the weights of all ranks equal.
        """
        self.close(RecordingError("the training began anew before it had ended"))
        recorder = record(model, self._run, optimizer=optimizer, replicated=replicated, **self._options)
        recorder.__enter__()
        self._recorder = recorder

    def goes_on_at(self, step: int) -> None:
        """Make room for a training that begins at a step: hide what a longer one left there before.

        Raises:
            RecordingError: The training begins at step 0, and the run holds rows of another one.
        """
        if own_rank() in (None, 0):
            self._rewind(step)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Rows of this training, by a rank that is ahead, are not to be taken for another's.
            torch.distributed.barrier()

    def begin(self, step: int, columns: Mapping[str, Any]) -> None:
        """Enter a step, or a micro-batch of it; one that never ended leaves no rows."""
        assert self._recorder is not None
        self.abandon()
        entering = self._recorder.step(step, **columns)
        entering.__enter__()
        self._step = entering

    def end(self) -> None:
        """Leave the step, and write its rows."""
        step, self._step = self._step, None
        if step is not None:
            step.__exit__(None, None, None)

    def abandon(self, error: BaseException | None = None) -> None:
        """Leave the step without rows, if there is one."""
        step, self._step = self._step, None
        if step is not None:
            error = error or RecordingError("the step never ended")
            try:
                step.__exit__(type(error), error, error.__traceback__)
            except BaseException as raised:
                if raised is not error:
                    raise

    def close(self, error: BaseException | None = None) -> None:
        """End the recording, if there is one: as finished, or as failed by `error`."""
        recorder, self._recorder = self._recorder, None
        if recorder is None:
            return
        self._failed = error is not None
        self.abandon(error)
        recorder.__exit__(None if error is None else type(error), error, None)

    def _rewind(self, step: int) -> None:
        if not any(one >= step for one in self._run.refresh().steps()):
            return
        held = self._run.activations().filter(pl.col("step") >= step).select("step", "source").unique().collect()
        if step == 0 and not self._failed and "train" in held["source"]:
            raise RecordingError(
                f"the run {self._run.name!r} holds rows of a training already",
                hint="another training is another run: lamina.Run.create; run.rewind(0) hides the first",
            )
        self._run.rewind(step)
        warnings.warn(
            f"the run {self._run.name!r} was rewound to step {step}, from which this training goes on: what it held "
            f"of that step and later ones, up to {held['step'].max()}, is hidden",
            LaminaWarning,
            stacklevel=5,
        )
